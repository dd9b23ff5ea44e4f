"""The easiest images on top, the hardest below."""

import cv2
import numpy as np
import torch
from helpers.builders import LINEAR, classifier, segmentor
from mmengine.structures import BaseDataElement, PixelData
from mmseg.structures import SegDataSample

from tvit_seg import EntropyGate
from tvit_seg.evaluation.sweep import sweep
from tvit_seg.visualization import ThinkingVisualizer
from tvit_seg.visualization.contact_sheet import draw_contact_sheet

META = dict(classes=tuple("abcde"), palette=[[i, i, 9 * i] for i in range(5)])


class Data(list):
    metainfo = META


def test_contact_sheet(tmp_path, monkeypatch):
    model = segmentor(
        EntropyGate(0.0), head=LINEAR, data_preprocessor=dict(type="SegDataPreProcessor")
    )
    data = Data()
    for i in range(7):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8))
        image = torch.from_numpy(cv2.imread(str(path))).permute(2, 0, 1)
        sample = SegDataSample(
            gt_sem_seg=PixelData(data=torch.zeros(1, 32, 32, dtype=torch.long)),
            metainfo=dict(ori_shape=(32, 32), img_shape=(32, 32), img_path=str(path)),
        )
        data.append(dict(inputs=image, data_samples=sample))

    class Loader(list):
        dataset = data

    batches = [dict(inputs=[d["inputs"]], data_samples=[d["data_samples"].clone()]) for d in data]
    found = sweep(model, Loader(batches))
    painted = []
    paint = ThinkingVisualizer.paint

    def watch(self, image, result, **kwargs):
        painted.append(result.img_path)
        return paint(self, image, result, **kwargs)

    monkeypatch.setattr(ThinkingVisualizer, "paint", watch)
    draw_contact_sheet(found, model, data, tmp_path / "new" / "sheet.png", count=2)
    order = np.argsort([image.look.entropy[0, 0] for image in found.images])
    expected = [*order[:2], *order[:-3:-1]]
    assert painted == [str(tmp_path / f"{i}.png") for i in expected]
    assert cv2.imread(str(tmp_path / "new" / "sheet.png")) is not None


def test_classifier(tmp_path):
    """Two of each kind, in one row each."""
    model = classifier(EntropyGate(0.0), data_preprocessor={})

    class Images(Data):
        def read(self, index):
            return np.zeros((32, 32, 3), np.uint8), 0

    data = Images(
        dict(
            inputs=torch.rand(3, 32, 32).mul(255).byte(),
            data_samples=BaseDataElement(gt_label=torch.tensor(i % 5)),
        )
        for i in range(5)
    )

    class Loader(list):
        dataset = data

    batches = [dict(inputs=[d["inputs"]], data_samples=[d["data_samples"].clone()]) for d in data]
    found = sweep(model, Loader(batches))
    draw_contact_sheet(found, model, data, tmp_path / "sheet.png")
    drawn = cv2.imread(str(tmp_path / "sheet.png"))
    assert drawn.shape == (2 * (36 + 240 + 4), 1260, 3)
    assert (drawn[40:250, :400] < 128).any() and (drawn[40:250, 420:] == 255).all()
