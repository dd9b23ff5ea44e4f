"""Thresholds for budgets, and their expected cost and quality."""

import numpy as np
import pytest

from tvit_seg.errors import ConfigError
from tvit_seg.evaluation.budget import Budget, Steps, plan, try_splits
from tvit_seg.evaluation.stages import SegmentationEvaluator, StagePredictions
from tvit_seg.evaluation.sweep import ImageSweep, Sweep


def image(rng, windows=1, stages=2, classes=3):
    """An image of which later stages get more pixels right."""
    entropy = rng.uniform(0, 1, (windows, stages)).astype(np.float32)
    right = rng.integers(20, 60, windows)

    def score(exits):
        hits = sum(right + 15 * np.array(exits)) / windows
        areas = np.array([hits, 200 - hits, 100, 100]) / classes
        return np.repeat(areas[:, None], classes, axis=1)

    predictions = StagePredictions(
        metainfo={},
        shape=(8, 8),
        entropy=entropy,
        gmacs=np.array([1.0, 4.0, 9.0])[:stages],
        seconds=np.array([0.01, 0.03, 0.1])[:stages],
    )
    return ImageSweep.from_predictions(predictions, score)


def data(count=40, seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    return Sweep([image(rng, **kwargs) for _ in range(count)], SegmentationEvaluator)


@pytest.mark.parametrize("kwargs", [{}, dict(windows=3), dict(windows=2, stages=3)])
def test_every_step_is_what_the_sweep_says_at_its_threshold(kwargs):
    found = data(10, **kwargs)
    steps = Steps(found)
    totals = steps.totals(np.ones(10))
    assert len(steps.thresholds) == len(totals)
    for threshold, total in zip(steps.thresholds, totals, strict=True):
        row = found.row(threshold)
        for name, value in steps.averages(total).items():
            assert value == pytest.approx(row[name]), (threshold, name)


@pytest.mark.parametrize(("kind", "value"), [("gmacs", 2.6), ("ms", 21.0)])
def test_cost_is_kept_and_used(kind, value):
    found = data()
    chosen = plan(found, Budget(kind, value), resamples=20)
    assert found.row(chosen.threshold)[kind] == pytest.approx(chosen.expected[kind].mean)
    step = {"gmacs": 3, "ms": 20}[kind] / 40  # of one image
    assert value - step < chosen.expected[kind].mean <= value
    share = found.row(chosen.threshold)["stage1.share"] / 100
    assert share <= chosen.think_shares[0] < share + 1 / 40
    cheapest, dearest = {"gmacs": (1, 4), "ms": (10, 30)}[kind]
    assert type(chosen.think_shares[0]) is float  # a config is written with it
    # a gate with this share spends just the budget
    assert cheapest + chosen.think_shares[0] * (dearest - cheapest) == pytest.approx(value)


def test_drop():
    found = data()
    best = found.row(0.0)["mIoU"]
    chosen = plan(found, Budget("drop", 3.0), resamples=20)
    assert best - 3 <= found.row(chosen.threshold)["mIoU"] < best
    assert plan(found, Budget("drop", 100.0), resamples=2).expected["gmacs"].mean == 1.0


@pytest.mark.integration
def test_interval_covers_new_data():
    """95 % of 100 times; fewer than 88 would be a chance of one in two hundred."""
    inside = dict(gmacs=0, mIoU=0)
    for seed in range(100):
        chosen = plan(data(30, seed), Budget("gmacs", 2.5), resamples=200)
        new = data(30, 1000 + seed).row(chosen.threshold)
        for metric in inside:
            expected = chosen.expected[metric]
            assert expected.low < expected.mean < expected.high
            inside[metric] += expected.low <= new[metric] <= expected.high
    assert min(inside.values()) >= 88


def test_images_without_labels():
    """Nothing to compare: a drop is no reason to stop."""
    found = data(3)
    for swept in found.images:
        swept.scores[:] = 0
    assert plan(found, Budget("drop", 1.0), resamples=5).threshold == 0


def test_held_out_halves():
    """The running quantile keeps the budget on every split, the fixed threshold on average."""
    found = try_splits(data(100), Budget("gmacs", 2.5), 8)
    deviations = found.deviations
    assert abs(deviations["fixed threshold"].mean()) < 0.03
    assert abs(deviations["BudgetGate"]).max() < 0.03
    assert "8 random halves" in str(found)
    assert "BudgetGate" not in str(try_splits(data(20), Budget("drop", 1.0), 2))


@pytest.mark.parametrize("value", [0.9, 4.1])
def test_out_of_reach(value):
    with pytest.raises(ConfigError, match=r"out of reach: an image costs from 1 .* to 4 "):
        plan(data(), Budget("gmacs", value))


def test_bad_arguments():
    with pytest.raises(ConfigError, match="splits must be"):
        try_splits(data(4), Budget("gmacs", 2.0), 0)
    with pytest.raises(ConfigError, match="calibration images must be at least 2"):
        plan(data(1), Budget("gmacs", 2.0))
    for kind, value in [("gmacs", -1), ("ms", float("nan")), ("watts", 1)]:
        with pytest.raises(ConfigError, match=r"budget .* must be"):
            Budget(kind, value)
