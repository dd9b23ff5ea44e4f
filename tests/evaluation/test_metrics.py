"""Exit shares, quality and cost of thinking stages."""

import math

import numpy as np
import pytest
import torch
from helpers.builders import SLIDE, batch, class_samples, classifier, segmentor
from mmseg.evaluation import IoUMetric

from tvit_seg import RandomGate
from tvit_seg.errors import ConfigError
from tvit_seg.evaluation import ExactIoUMetric, ThinkingAccuracy, ThinkingMetric
from tvit_seg.evaluation.metrics import pixel_counts, segmentation_quality

META = dict(classes=tuple("abcde"))


def test_segmentation_quality_is_that_of_mmseg():
    rng = np.random.default_rng(0)
    both = rng.integers(0, 9, (6, 4, 5)).astype(float)
    both[0, :, 2] = 0  # a class that is not there
    both[:, 1] += both[:, 0]
    found = segmentation_quality(both)
    for i, areas in enumerate(both):
        theirs = IoUMetric.total_area_to_metrics(*torch.from_numpy(areas), nan_to_num=None)
        assert found["mIoU"][i] == pytest.approx(100 * np.nanmean(theirs["IoU"]))
        assert found["mAcc"][i] == pytest.approx(100 * np.nanmean(theirs["Acc"]), nan_ok=True)
        assert found["aAcc"][i] == pytest.approx(100 * float(theirs["aAcc"]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_pixel_counts_are_those_of_mmseg(dtype):
    """Also with labels and predictions that are no class."""
    labels = torch.randint(0, 7, (40, 50)).to(dtype)
    labels[:3] = 255
    prediction = torch.randint(0, 6, (40, 50))
    wanted = IoUMetric.intersect_and_union(prediction, labels.long(), 5, 255)
    found = pixel_counts(prediction, labels, 5)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, torch.stack(wanted))


def iou(kind, prediction, labels, **kwargs):
    metric = kind(iou_metrics=["mIoU", "mDice", "mFscore"], **kwargs)
    metric.dataset_meta = META
    sample = dict(pred_sem_seg=dict(data=prediction[None]), gt_sem_seg=dict(data=labels[None]))
    metric.process({}, [sample])
    return metric.evaluate(1)


def test_the_exact_metric_has_the_results_of_mmseg(caplog):
    prediction, labels = torch.randint(0, 5, (2, 60, 60))
    labels[0] = 254
    pair = (iou(kind, prediction, labels, ignore_index=254) for kind in (ExactIoUMetric, IoUMetric))
    found, theirs = pair
    assert found == pytest.approx(theirs, abs=0.011)
    assert list(found) == list(theirs)
    assert "16,777,216" not in caplog.text


def test_more_pixels_than_float32_counts(monkeypatch):
    """In one thread mmseg finds an IoU of 84 for class 1."""
    logged = []
    monkeypatch.setattr("tvit_seg.evaluation.metrics.print_log", lambda *args: logged.append(args))
    labels = torch.ones(4200, 4200, dtype=torch.uint8)
    prediction = labels.clone()
    prediction[:840] = 2  # a fifth of the pixels
    assert iou(ExactIoUMetric, prediction, labels)["mIoU"] == 40  # (80 + 0) / 2
    assert "1 images have more than 16,777,216 pixels" in logged[0][0]


def result(stages, entropy_width=2, gmacs=1.0, windows=None, wrong=0, difficulty=None):
    """A result of 4 x 4 pixels, all of class 1, of which the first ``wrong`` are predicted 2."""
    prediction = torch.ones(1, 4, 4, dtype=torch.long)
    prediction.view(-1)[:wrong] = 2
    return dict(
        exit_stage=torch.tensor(stages),
        gate_entropy=torch.zeros(len(stages), entropy_width),
        windows=torch.tensor([[0.0, 0, 1, 1]] if windows is None else windows),
        gmacs=gmacs,
        difficulty=difficulty,
        pred_sem_seg=dict(data=prediction),
        gt_sem_seg=dict(data=torch.ones(1, 4, 4, dtype=torch.long)),
    )


def evaluate(*results, **kwargs):
    metric = ThinkingMetric(**kwargs)
    metric.dataset_meta = META
    for sample in results:
        metric.process({}, [sample])
    return metric.evaluate(len(results))


def test_shares_iou_and_cost():
    found = evaluate(
        result([0], gmacs=1.0), result([0], gmacs=1.0, wrong=8), result([1], gmacs=4.0)
    )
    assert found["thinking/stage0.share"] == 66.67
    assert found["thinking/stage1.share"] == 33.33
    # class 1: 24 of 32 pixels; class 2: none of the 8 predicted
    assert found["thinking/stage0.mIoU"] == pytest.approx(100 * (24 / 32 + 0) / 2)
    assert found["thinking/stage1.mIoU"] == 100
    assert found["thinking/gmacs"] == 2.0


def test_a_stage_without_exits():
    found = evaluate(result([2], 3))
    assert found["thinking/stage0.share"] == 0
    assert math.isnan(found["thinking/stage0.mIoU"])
    assert found["thinking/stage2.share"] == 100


def test_windows_count_where_they_lie():
    """Two halves: the upper stopped first and is wrong, the lower thought on and is right."""
    halves = [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]
    found = evaluate(result([0, 1], windows=halves, wrong=8))
    assert found["thinking/stage0.share"] == found["thinking/stage1.share"] == 50
    assert found["thinking/stage0.mIoU"] == 0
    assert found["thinking/stage1.mIoU"] == 100


def test_thinking_by_difficulty():
    results = [result([int(d > 0.4)], difficulty=d) for d in (0.0, 0.2, 0.35, 0.5, 0.9, 1.0)]
    found = evaluate(*results, difficulty_key="difficulty")
    assert [found[f"thinking/thinks.{level}"] for level in ("easy", "medium", "hard")] == [
        0, 50, 100,
    ]  # fmt: skip


@pytest.mark.parametrize("test_cfg", [dict(mode="whole"), SLIDE], ids=["whole", "slide"])
@torch.no_grad()
def test_on_a_segmentor(test_cfg):
    """All in one stage: its mIoU is mmseg's."""
    model = segmentor(RandomGate(0.0), test_cfg=test_cfg)
    images, data_samples = batch(3)
    results = [sample.to_dict() for sample in model.predict(images, data_samples)]
    theirs = IoUMetric()
    theirs.dataset_meta = META
    theirs.process({}, results)
    found = evaluate(*results)
    assert found["thinking/stage1.share"] == 100
    assert found["thinking/stage1.mIoU"] == pytest.approx(theirs.evaluate(3)["mIoU"], abs=0.01)


def classified(label, exit_stage, stage_scores, gmacs=1.0, per_stage=True):
    scores = torch.tensor(stage_scores)
    found = dict(
        gt_label=torch.tensor(label),
        exit_stage=torch.tensor(exit_stage),
        gate_entropy=torch.zeros(len(scores)),
        pred_score=scores[exit_stage],
        gmacs=gmacs,
    )
    return {**found, "stage_scores": scores} if per_stage else found


def accuracy(*results, topk=(1, 2)):
    metric = ThinkingAccuracy(topk=topk)
    metric.process({}, results)
    return metric.evaluate(len(results))


def test_stages_gate_shares_and_cost():
    right, second, wrong = [0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.1, 0.3, 0.6]
    found = accuracy(
        classified(0, 0, [right, wrong], gmacs=1.0),
        classified(0, 0, [second, right], gmacs=1.0),
        classified(0, 1, [wrong, right], gmacs=4.0),
        classified(0, 0, [right, right], gmacs=1.0),
    )
    assert found["accuracy/top1"] == 75
    assert found["accuracy/top2"] == 100
    assert found["accuracy/stage0.top1"] == 50
    assert found["accuracy/stage0.top2"] == 75
    assert found["accuracy/stage1.top1"] == 75
    assert found["accuracy/stage0.share"] == 75
    assert found["accuracy/stage1.share"] == 25
    assert found["accuracy/stage0.exit_top1"] == pytest.approx(66.67)
    assert found["accuracy/stage1.exit_top1"] == 100
    assert found["accuracy/gmacs"] == 1.75


def test_accuracies_of_stages_that_did_not_run_are_left_out():
    found = accuracy(classified(0, 0, [[0.9, 0.1], [0.9, 0.1]], per_stage=False))
    assert "accuracy/stage0.top1" not in found
    assert math.isnan(found["accuracy/stage1.exit_top1"])
    assert found["accuracy/stage1.share"] == 0


@torch.no_grad()
def test_on_a_classifier():
    model = classifier(RandomGate(0.5, seed=0), test_cfg=dict(per_stage=True))
    images, labels = torch.randn(40, 3, 32, 32), [i % 5 for i in range(40)]
    results = [sample.to_dict() for sample in model.predict(images, class_samples(labels))]
    found = accuracy(*results, topk=(1,))
    outputs = model.backbone.forward_stages(images)
    for stage, output in enumerate(outputs):
        share = (output.logits.argmax(1) == torch.tensor(labels)).float().mean()
        assert found[f"accuracy/stage{stage}.top1"] == pytest.approx(100 * share.item(), abs=0.01)
    share = (model(images).argmax(1) == torch.tensor(labels)).float().mean()
    assert found["accuracy/top1"] == pytest.approx(100 * share.item(), abs=0.01)
    assert 0 < found["accuracy/stage0.share"] < 100


def test_bad_input():
    with pytest.raises(ConfigError, match="topk must be"):
        ThinkingAccuracy(topk=(0,))
    with pytest.raises(ConfigError, match="topk must be at most the number of classes, 2"):
        accuracy(classified(0, 0, [[0.9, 0.1]]), topk=(5,))
    for metric, model in ((ThinkingAccuracy(), "Classifier"), (ThinkingMetric(), "EncoderDecoder")):
        with pytest.raises(ConfigError, match=f"needs a Thinking{model}"):
            metric.process({}, [dict(gt_label=torch.tensor(0))])
