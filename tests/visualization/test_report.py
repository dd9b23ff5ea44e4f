"""The page of a sweep has the figures of the sweep, and pictures of as many images as fit."""

import base64
import io
import json
import sys

import numpy as np
import pytest
import torch
from helpers.builders import SLIDE, classifier, segmentor
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from tvit_seg import EntropyGate
from tvit_seg.errors import ConfigError
from tvit_seg.evaluation.record import PassRecord
from tvit_seg.evaluation.sweep import sweep
from tvit_seg.utils.text import to_json
from tvit_seg.visualization import report
from tvit_seg.visualization.report import ReportView, find_plotly, report_data, write_report

META = dict(classes=("</script>", *"bcde"), palette=[[i, i, 9 * i] for i in range(5)])
SIZE = (32, 40)


class Loader(list):
    """Batches of one image each; labels have ignored pixels."""

    def __init__(self, count, labelled=True):
        rng = np.random.default_rng(0)
        for i in range(count):
            sample = SegDataSample(
                metainfo=dict(ori_shape=SIZE, img_shape=SIZE, img_path=f"folder/{i}.png")
            )
            if labelled:
                labels = torch.from_numpy(rng.integers(0, 5, (1, *SIZE)))
                labels[:, :5] = 255
                sample.gt_sem_seg = PixelData(data=labels)
            pixels = torch.from_numpy(rng.integers(0, 255, (3, *SIZE), np.uint8))
            self.append(dict(inputs=[pixels], data_samples=[sample]))
        self.dataset = type("Data", (), {"metainfo": META, "__len__": lambda _: count})()


def model_of(test_cfg=dict(mode="whole"), **kwargs):
    torch.manual_seed(0)
    pre = dict(type="SegDataPreProcessor", bgr_to_rgb=True)
    return segmentor(EntropyGate(1.6), data_preprocessor=pre, test_cfg=test_cfg, **kwargs)


def swept(count=6, labelled=True, record=None, **kwargs):
    model, loader = model_of(**kwargs), Loader(count, labelled)
    return sweep(model, loader, None, record, ReportView.build(model, loader.dataset))


def pixels_of(uri):
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA"))


@pytest.mark.parametrize("test_cfg", [dict(mode="whole"), SLIDE], ids=["whole", "slide"])
def test_figures_are_those_of_the_sweep(test_cfg):
    found = swept(test_cfg=test_cfg)
    rows = [found.row(threshold) for threshold in (0.0, 1.55, float("inf"))]
    data = report_data(found, META, rows, 1.6, "title")
    known = {row["threshold"]: row for row in data["steps"]}
    assert all(known[row["threshold"]] == row for row in rows)
    assert list(known) == sorted(known)
    assert data["steps"][data["start"]] == found.row(1.6)
    assert data["gap"] == found.gap
    assert np.nanmean(data["iou"][1]) == pytest.approx(found.single[1]["mIoU"])
    counts = np.array(data["confusion"])
    np.testing.assert_array_equal(
        counts.diagonal(axis1=1, axis2=2),
        sum(image.stage_scores for image in found.images)[:, 0],
    )
    image = data["images"][2]
    assert image["name"] == "2.png"
    assert image["entropy"] == found.images[2].predictions.entropy.tolist()
    assert len(image["boxes"]) == len(image["entropy"])


def test_calibration_counts_every_class_of_every_window():
    probabilities = 5 * sum(len(image.exits[0]) for image in swept(4, test_cfg=SLIDE).images)
    found = swept(4, test_cfg=SLIDE)
    data = report_data(found, META, [], 1.6, "")
    counts = np.array(data["calibration"])
    assert counts[:, 0].sum() == probabilities
    assert counts[:, 1].sum() == pytest.approx(probabilities / 5, rel=1e-4)  # softmax
    assert 0 <= data["calibration_error"] <= 1


def test_pictures():
    found, loader = swept(1), Loader(1)
    pictures = found.images[0].view["pictures"]
    label = loader[0]["data_samples"][0].gt_sem_seg.data[0].numpy()
    drawn = pixels_of(pictures["label"])
    assert not drawn[:5, :, 3].any()
    np.testing.assert_array_equal(drawn[5:, :, :3], np.array(META["palette"])[label[5:]])
    assert set(np.unique(label[5:])) <= set(pictures["classes"])
    first, last = (pixels_of(uri)[..., :3] for uri in pictures["stages"])
    changed = (first != last).any(-1)
    difference = pixels_of(pictures["difference"])
    right = (drawn[..., :3] == first).all(-1)
    assert changed[5:].any()
    np.testing.assert_array_equal(difference[5:, :, 3] > 0, (changed | ~right)[5:])
    image = pixels_of(pictures["input"])[..., :3].astype(int)
    own = loader[0]["inputs"][0].permute(1, 2, 0).numpy()[..., ::-1]
    assert abs(image.mean((0, 1)) - own.mean((0, 1))).max() < 3


def test_large_pictures_are_reduced():
    labels = np.zeros((400, 1024), int)
    labels[:, 512:] = 299
    palette = [[i % 256, i // 256, 7] for i in range(300)]
    drawn = pixels_of(report._draw(labels, report._fit(labels.shape), palette))
    assert drawn.shape == (100, 256, 4)
    assert drawn[0, 0].tolist() == [0, 0, 7, 255]
    assert drawn[0, -1].tolist() == [43, 1, 7, 255]


def test_a_sample_of_the_images(monkeypatch):
    monkeypatch.setattr(report, "MOST_IMAGES", 4)
    found = swept(10)
    assert ["pictures" in image.view for image in found.images] == 3 * [True, False, False] + [True]
    data = report_data(found, META, [], 1.6, "")
    assert [image["name"] for image in data["images"]] == ["0.png", "3.png", "6.png", "9.png"]
    assert data["num_images"] == len(data["entropies"]) == 10
    size = len(to_json(found.images[0].view["pictures"]))
    monkeypatch.setattr(report, "_MOST_BYTES", 3 * size)
    assert len(report_data(found, META, [], 1.6, "")["images"]) == 2


def test_without_labels():
    found = swept(labelled=False)
    data = report_data(found, META, [found.row(1.55)], 1.6, "")
    assert data["headline"] is None
    assert data["qualities"] == []
    assert "label" not in data["images"][0]
    assert data["images"][0]["correct"] is None
    assert "confusion" not in data


def test_an_interrupted_pass_keeps_its_pictures(tmp_path):
    whole = swept()
    record = PassRecord(tmp_path, {})
    swept(record=record)
    again = swept(record=record)
    assert [image.view for image in again.images] == [image.view for image in whole.images]


def test_page(tmp_path, monkeypatch):
    script = tmp_path / "plotly.min.js"
    script.write_text("const Plotly = 0;")
    monkeypatch.setattr(report, "find_plotly", lambda: script)
    found, page = swept(), tmp_path / "new" / "page.html"
    rows = [found.row(0.0), found.row(float("inf"))]
    assert write_report(found, META, rows, 1.6, page, "title") == 6
    text = page.read_text(encoding="utf-8")
    assert "<script>const Plotly = 0;</script>" in text
    assert "http:" not in text and "https:" not in text
    embedded = text.partition('id="data">')[2].partition("</script>")[0]
    data = json.loads(embedded)
    assert data == json.loads(to_json(report_data(found, META, rows, 1.6, "title")))
    assert data["classes"][0] == "</script>"


def test_bad_input(monkeypatch):
    with pytest.raises(ConfigError, match="segmentor"):
        ReportView.build(classifier(EntropyGate(0.0)), Loader(1).dataset)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(ConfigError, match="plotly"):
        find_plotly()
