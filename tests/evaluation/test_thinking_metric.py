"""Where images stopped, how well they did there, and what they cost."""

import math

import pytest
import torch
from helpers.builders import SLIDE, batch, segmentor
from mmseg.evaluation import IoUMetric

from tvit_seg import RandomGate
from tvit_seg.evaluation import ThinkingMetric

META = dict(classes=tuple("abcde"))


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


def test_a_stage_that_nobody_left():
    found = evaluate(result([2], 3))
    assert found["thinking/stage0.share"] == 0
    assert math.isnan(found["thinking/stage0.mIoU"])
    assert found["thinking/stage2.share"] == 100


def test_windows_are_judged_where_they_lie():
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


def test_without_an_account_of_thinking():
    sample = result([0])
    del sample["exit_stage"]
    with pytest.raises(KeyError, match="needs a ThinkingEncoderDecoder"):
        evaluate(sample)


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
