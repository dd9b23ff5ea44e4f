"""One pass over the data equals one evaluation for each threshold."""

import math

import cv2
import pytest
import torch
from builders import LINEAR, MASK, SLIDE, batch, segmentor
from mmseg.evaluation import IoUMetric

from tvit_seg.evaluation import ThinkingMetric
from tvit_seg.evaluation.plot import plot_sweep
from tvit_seg.evaluation.sweep import choose_exits, sweep

PREPROCESSOR = dict(type="SegDataPreProcessor")
META = dict(classes=tuple("abcde"), palette=[[i] * 3 for i in range(5)])


class Loader(list):
    """Batches with the metainfo of a dataset."""

    def __init__(self, count, size):
        images, data_samples = batch(count, size)
        for i, sample in enumerate(data_samples):
            sample.set_metainfo(dict(difficulty=i / count))
        super().__init__(
            dict(inputs=[image], data_samples=[sample])
            for image, sample in zip(images, data_samples, strict=True)
        )
        self.dataset = type("Data", (), {"metainfo": META, "__len__": lambda _: count})()


@torch.no_grad()
def evaluate(model, loader):
    """The ordinary way: predict and let the metrics look."""
    metrics = [IoUMetric(), ThinkingMetric(difficulty_key="difficulty")]
    for data in loader:
        results = model.test_step(
            dict(data, data_samples=[s.clone() for s in data["data_samples"]])
        )
        for metric in metrics:
            metric.dataset_meta = META
            metric.process({}, [result.to_dict() for result in results])
    found = {}
    for metric in metrics:
        found.update(metric.evaluate(len(loader)))
    return {name.removeprefix("thinking/"): value for name, value in found.items()}


def build(kind, test_cfg, head):
    model = segmentor(test_cfg=test_cfg, head=head, data_preprocessor=PREPROCESSOR)
    model.backbone.set_gate(dict(type=kind, threshold=0.0), has_decode_head=True)
    return model


@pytest.mark.parametrize("head", [LINEAR, MASK], ids=["linear", "mask"])
@pytest.mark.parametrize("kind", ["EntropyGate", "PixelEntropyGate"])
@pytest.mark.parametrize("test_cfg", [dict(mode="whole"), SLIDE], ids=["whole", "slide"])
def test_equals_separate_evaluations(kind, test_cfg, head):
    model, loader = build(kind, test_cfg, head), Loader(5, (50, 61))
    found = sweep(model, loader, difficulty_key="difficulty")
    rows = found.rows
    assert len(rows) == 5
    assert found.single[1]["mIoU"] == rows[0]["mIoU"]
    assert found.single[0]["gmacs"] == rows[-1]["gmacs"]
    shares = [row["stage0.share"] for row in rows]
    assert shares == sorted(shares)
    assert shares[0] == 0 and shares[-1] == 100 and 0 < shares[2] < 100
    for row in rows:
        model.backbone.gate.threshold = row["threshold"]
        expected = evaluate(model, loader)
        for name in set(row) - {"threshold"}:
            assert row[name] == pytest.approx(expected[name], abs=0.006, nan_ok=True), name


def test_given_thresholds_run_each_stage_once():
    model, loader = build("EntropyGate", dict(mode="whole"), LINEAR), Loader(3, (32, 32))
    model.predict(torch.randn(1, 3, 32, 32))  # counts the cost, by running the model without data
    seen = []
    model.backbone.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    found = sweep(model, loader, [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
    assert len(found.rows) == 6
    assert sum(seen) == 2 * 3


def test_choose_exits():
    nan = float("nan")
    entropy = torch.tensor([[0.5, 0.1, 0.2], [0.1, nan, nan], [0.9, 0.9, 0.9]])
    assert choose_exits(entropy, 0.3).tolist() == [1, 0, 2]
    assert choose_exits(entropy, 0.0).tolist() == [2, 2, 2]
    assert choose_exits(entropy, math.inf).tolist() == [0, 0, 0]


def test_a_gate_without_a_threshold():
    with pytest.raises(ValueError, match="a gate with a threshold is needed"):
        sweep(segmentor(), Loader(1, (32, 32)), [0.5])


@pytest.mark.parametrize("threshold", [-1.0, float("nan")])
def test_bad_thresholds(threshold):
    model = build("EntropyGate", dict(mode="whole"), LINEAR)
    with pytest.raises(ValueError, match=f"threshold={threshold} must be"):
        sweep(model, Loader(1, (32, 32)), [threshold])


def test_picture(tmp_path):
    model = build("EntropyGate", dict(mode="whole"), LINEAR)
    found = sweep(model, Loader(4, (32, 32)))
    plot_sweep(found, tmp_path / "new" / "sweep.png", "title")
    assert cv2.imread(str(tmp_path / "new" / "sweep.png")).shape[2] == 3
