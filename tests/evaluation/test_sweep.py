"""One pass over the data equals one evaluation for each threshold."""

import math

import numpy as np
import pytest
import torch
from helpers.builders import LINEAR, MASK, SLIDE, VIT, batch, classifier, segmentor
from mmengine.structures import BaseDataElement
from mmseg.evaluation import IoUMetric
from mmseg.registry import MODELS

from tvit_seg.errors import ConfigError
from tvit_seg.evaluation import ThinkingMetric
from tvit_seg.evaluation.sweep import check_thresholds, choose_exits, sweep, sweep_keep_ratios

WHOLE = dict(mode="whole")
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
    """Predict, then compute the metrics."""
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
    model.backbone.set_gate(dict(kind, threshold=0.0), has_decode_head=True)
    return model


@pytest.mark.parametrize(
    ("kind", "test_cfg", "head"),
    [
        (dict(type="EntropyGate"), SLIDE, MASK),
        (dict(type="PixelEntropyGate"), WHOLE, LINEAR),
        (dict(type="PixelEntropyGate", resolution="token"), SLIDE, LINEAR),
    ],
    ids=["slide-mask", "pixels-linear", "slide-tokens-linear"],
)
def test_equals_separate_evaluations(kind, test_cfg, head):
    model, loader = build(kind, test_cfg, head), Loader(5, (50, 61))
    found = sweep(model, loader, difficulty_key="difficulty")
    rows = [found.row(threshold) for threshold in found.thresholds()]
    assert len(rows) == 5
    assert found.single[1]["mIoU"] == rows[0]["mIoU"]
    assert found.single[0]["gmacs"] == rows[-1]["gmacs"]
    shares = [row["stage0.share"] for row in rows]
    assert shares == sorted(shares)
    assert shares[0] == 0 and shares[-1] == 100 and 0 < shares[2] < 100
    for row in rows:
        model.backbone.gate.threshold = row["threshold"]
        expected = evaluate(model, loader)
        for name in set(row) - {"threshold", "ms", "fps"}:
            assert row[name] == pytest.approx(expected[name], abs=0.006, nan_ok=True), name


def test_keep_ratios_are_a_second_axis():
    pruning = dict(type="DynamicPruning", locations=(0, 1), keep_ratio=0.7)
    backbone = dict(img_size=64, patch_size=4, pruning=pruning)
    model = segmentor(data_preprocessor=PREPROCESSOR, backbone=backbone)
    model.backbone.set_gate(dict(type="EntropyGate", threshold=0.0), has_decode_head=True)
    loader = Loader(4, (50, 61))
    found = sweep_keep_ratios(model, loader, [0.5, 1.0])
    assert model.backbone.pruning.keep_ratio == 0.7
    for keep_ratio, swept in found.items():
        model.backbone.pruning.keep_ratio = keep_ratio
        row, expected = swept.row(0), evaluate(model, loader)
        for name in ("mIoU", "gmacs", "stage1.share"):
            assert row[name] == pytest.approx(expected[name], abs=0.006), name
    assert found[0.5].row(0)["gmacs"] < found[1.0].row(0)["gmacs"]
    assert found[0.5].row(math.inf)["mIoU"] == found[1.0].row(math.inf)["mIoU"]
    with pytest.raises(ConfigError, match="pruning must be set"):
        sweep_keep_ratios(segmentor(data_preprocessor=PREPROCESSOR), loader, [0.5])


def test_three_stages_equal_separate_evaluations():
    """A window may go from the last stage to the middle to the first."""
    model = segmentor(
        backbone=dict(thinking_stages=(1, 2, 4)), test_cfg=SLIDE, data_preprocessor=PREPROCESSOR
    )
    model.backbone.set_gate(dict(type="EntropyGate", threshold=0.0))
    loader = Loader(3, (50, 61))
    found = sweep(model, loader)
    for threshold in found.thresholds(9):
        model.backbone.gate.threshold = threshold
        expected, row = evaluate(model, loader), found.row(threshold)
        for name in ("mIoU", "stage0.share", "stage1.share", "stage2.share", "gmacs"):
            assert row[name] == pytest.approx(expected[name], abs=0.006), name


@pytest.mark.parametrize("classes", [5, 7])
@torch.no_grad()
def test_classifier_equals_separate_evaluations(classes):
    model = classifier(
        gate=dict(type="EntropyGate", threshold=0.0), backbone=dict(num_classes=classes)
    )
    model.eval()
    images, labels = torch.randn(12, 3, 32, 32), torch.arange(12) % classes
    samples = [BaseDataElement(gt_label=label, metainfo=dict(img_path="")) for label in labels]
    loader = Loader(0, (32, 32))
    loader += [dict(inputs=images[i : i + 4], data_samples=samples[i : i + 4]) for i in (0, 4, 8)]
    meta = dict(classes=tuple("abcdefg"[:classes]))
    loader.dataset = type("Data", (), {"metainfo": meta, "__len__": lambda _: 12})()
    found = sweep(model, loader)
    for threshold in found.thresholds(7):
        model.backbone.gate.threshold = threshold
        results = model.predict(images)
        right = [int(r.pred_label == label) for r, label in zip(results, labels, strict=True)]
        row = found.row(threshold)
        assert row["top1"] == pytest.approx(100 * np.mean(right))
        if classes == 5:
            assert "top5" not in row  # it would always be 100
        else:
            best = [r.pred_score.topk(5).indices for r in results]
            among = [int(label in b) for b, label in zip(best, labels, strict=True)]
            assert row["top5"] == pytest.approx(100 * np.mean(among))
        assert row["gmacs"] == pytest.approx(np.mean([r.gmacs for r in results]))
        assert row["stage1.share"] == pytest.approx(100 * np.mean([r.exit_stage for r in results]))
    assert found.oracle[-1]["top1"] >= found.row(0.0)["top1"]


def test_models_without_a_threshold():
    plain = MODELS.build(dict(type="EncoderDecoder", backbone=VIT, decode_head=LINEAR))
    with pytest.raises(ConfigError, match="EncoderDecoder records no exits"):
        sweep(plain, Loader(1, (32, 32)))
    with pytest.raises(ConfigError, match="must be a gate with a threshold, got 'FixedGate'"):
        sweep(segmentor(), Loader(1, (32, 32)))


def test_each_stage_runs_once_for_any_number_of_thresholds():
    model, loader = build(dict(type="EntropyGate"), WHOLE, LINEAR), Loader(3, (32, 32))
    model.predict(torch.randn(1, 3, 32, 32))  # counts the cost, by running the model without data
    sizes = []
    model.backbone.blocks[0].register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    found = sweep(model, loader)
    assert len([found.row(threshold) for threshold in (0.0, 1.0, 3.0)]) == 3
    assert sum(sizes) == 2 * 3


class Clock:
    """A second for every stage and every decode head."""

    def __init__(self, device):
        pass

    def lap(self):
        return 1.0


def test_time_is_that_of_the_stages_that_ran(monkeypatch):
    monkeypatch.setattr("tvit_seg.evaluation.stages.Stopwatch", Clock)
    found = sweep(build(dict(type="EntropyGate"), WHOLE, LINEAR), Loader(4, (32, 32)))
    think, stop = found.row(0.0), found.row(math.inf)
    middle = found.row(found.thresholds(3)[1])
    assert (stop["ms"], think["ms"]) == (2000, 3000)  # one stage or both, and one decoding
    assert middle["ms"] == 2500  # half of the images
    assert think["fps"] == pytest.approx(1000 / think["ms"])


def test_choose_exits():
    nan = float("nan")
    entropy = np.array([[0.5, 0.1, 0.2], [0.1, nan, nan], [0.9, 0.9, 0.9]], np.float32)
    assert choose_exits(entropy, 0.3).tolist() == [1, 0, 2]
    assert choose_exits(entropy, 0.0).tolist() == [2, 2, 2]
    assert choose_exits(entropy, math.inf).tolist() == [0, 0, 0]
    entropy = torch.tensor([[0.1, 0.0]])
    for threshold in (0.1, 0.1 + 1e-9, 0.1 + 1e-8):  # rounded as torch does
        expected = 0 if entropy[0, 0] < threshold else 1
        assert choose_exits(entropy.numpy(), threshold).tolist() == [expected]


@pytest.mark.parametrize("thresholds", [[-1.0], [0.1, math.nan], [0.2, 0.2], []])
def test_bad_thresholds(thresholds):
    with pytest.raises(ConfigError, match=r"thresholds? must be"):
        check_thresholds(thresholds)
