"""The easiest images on top, the hardest below."""

import cv2
import numpy as np
import torch
from helpers.builders import class_samples, classifier, segmentor
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from tvit_seg import EntropyGate
from tvit_seg.evaluation.sweep import sweep
from tvit_seg.visualization import ThinkingVisualizer
from tvit_seg.visualization.contact_sheet import draw_contact_sheet

META = dict(classes=tuple("abcde"), palette=[[i, i, 9 * i] for i in range(5)])


class Data(list):
    metainfo = META

    def read(self, index):
        return np.zeros((32, 32, 3), np.uint8), 0


def swept(model, data):
    batches = [dict(inputs=[d["inputs"]], data_samples=[d["data_samples"].clone()]) for d in data]
    return sweep(model, type("Loader", (list,), dict(dataset=data))(batches))


def test_segmentor(tmp_path, monkeypatch):
    model = segmentor(EntropyGate(0.0), data_preprocessor=dict(type="SegDataPreProcessor"))
    data = Data()
    for i in range(7):
        path = str(tmp_path / f"{i}.png")
        image = np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8)
        cv2.imwrite(path, image)
        sample = SegDataSample(
            gt_sem_seg=PixelData(data=torch.zeros(1, 32, 32, dtype=torch.long)),
            metainfo=dict(ori_shape=(32, 32), img_shape=(32, 32), img_path=path),
        )
        data.append(dict(inputs=torch.from_numpy(image).permute(2, 0, 1), data_samples=sample))
    found = swept(model, data)
    painted = []
    paint = ThinkingVisualizer.paint

    def watch(self, image, result, **kwargs):
        painted.append(result.img_path)
        return paint(self, image, result, **kwargs)

    monkeypatch.setattr(ThinkingVisualizer, "paint", watch)
    draw_contact_sheet(found, model, data, tmp_path / "new" / "sheet.png", count=2)
    order = np.argsort([image.predictions.entropy[0, 0] for image in found.images])
    assert painted == [str(tmp_path / f"{i}.png") for i in [*order[:2], *order[:-3:-1]]]
    assert cv2.imread(str(tmp_path / "new" / "sheet.png")).shape[1] == 1260


def test_classifier(tmp_path):
    """Two of each kind, in one row each."""
    model = classifier(EntropyGate(0.0), data_preprocessor={})
    images = torch.rand(5, 3, 32, 32).mul(255).byte()
    data = Data(
        dict(inputs=image, data_samples=sample)
        for image, sample in zip(images, class_samples(range(5)), strict=True)
    )
    draw_contact_sheet(swept(model, data), model, data, tmp_path / "sheet.png")
    page = cv2.imread(str(tmp_path / "sheet.png"))
    assert page.shape == (2 * (36 + 240 + 4), 1260, 3)
    assert (page[40:250, :400] < 128).any() and (page[40:250, 420:] == 255).all()
