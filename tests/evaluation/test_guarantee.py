"""Thresholds whose loss of accuracy on new images is bounded with a chosen confidence."""

import numpy as np
import pytest

from tvit_seg.errors import ConfigError
from tvit_seg.evaluation import guarantee as module
from tvit_seg.evaluation.guarantee import (
    GRID,
    Guarantee,
    guaranteed_plan,
    guaranteed_threshold,
    try_guarantee,
)
from tvit_seg.evaluation.stages import ClassificationEvaluator, StagePredictions
from tvit_seg.evaluation.sweep import ImageSweep, Sweep


def data(count, harm=0.5, seed=0):
    """Images that lose by stopping the more often, the higher their entropy; always with 1."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        entropy = np.float32([[rng.uniform(), rng.uniform()]])
        early = float(rng.uniform() > harm * entropy[0, 0])
        predictions = StagePredictions(
            {}, (8, 8), entropy, np.array([1.0, 4.0]), np.array([0.01, 0.03])
        )
        scores = np.array([[early, 1.0], [1.0, 1.0]])
        images.append(ImageSweep.from_predictions(predictions, lambda e, s=scores: s[e[0]]))
    return Sweep(images, ClassificationEvaluator)


def true_drop(threshold, harm=0.5):
    """Expected loss in points of all images with a uniform entropy below a threshold."""
    return 100 * harm * min(threshold, 1) ** 2 / 2


@pytest.mark.parametrize("confidence", [0.7, 0.9])
def test_the_limit_is_exceeded_as_rarely_as_promised(confidence, monkeypatch):
    monkeypatch.setattr(module, "GRID", np.linspace(0, 1, 101, dtype=np.float32))
    wanted = Guarantee(max_drop=5, confidence=confidence)
    found = [guaranteed_threshold(data(200, seed=seed), wanted) for seed in range(60)]
    exceeded = np.mean([true_drop(threshold) > 5 for threshold in found])
    error = np.sqrt(confidence * (1 - confidence) / len(found))
    assert exceeded <= 1 - confidence + 2 * error
    assert true_drop(np.median(found)) > 1  # and not by always thinking


def test_more_images_allow_a_higher_threshold():
    wanted = Guarantee(max_drop=5, confidence=0.9)
    few, many = (guaranteed_threshold(data(count), wanted) for count in (100, 1000))
    assert 0 <= few < many < np.sqrt(0.2)


def test_too_few_images_always_think():
    assert guaranteed_threshold(data(5, harm=0), Guarantee(1, 0.9)) == 0


def test_no_loss_at_all_allows_everything():
    assert guaranteed_threshold(data(100, harm=0), Guarantee(5, 0.9)) == GRID[-1]


def test_a_bound_holds_at_the_limit():
    rng = np.random.default_rng(0)
    losses = rng.choice([-0.1, 0.0, 0.3], p=[0.2, 0.5, 0.3], size=(300, 2000))
    rejected = module._p_values(losses, losses.mean(), 0.1) <= 0.1
    assert 0.01 < rejected.mean() <= 0.1 + 0.02


def test_plan_is_the_sweep_at_the_threshold():
    found = data(300)
    chosen = guaranteed_plan(found, Guarantee(5, 0.9))
    row = found.row(chosen.threshold)
    for name, expected in chosen.expected.items():
        assert row[name] == pytest.approx(expected.mean)
        assert expected.low <= expected.mean <= expected.high
    assert chosen.think_shares == [pytest.approx(row["stage1.share"] / 100)]


def test_splits_count_violations():
    tried = try_guarantee(data(400), Guarantee(5, 0.9), count=50)
    assert tried.rate == np.mean(tried.drops > 5) <= 0.2
    assert (tried.costs <= 1).all()
    assert f"{tried.rate:.1%}" in str(tried)


@pytest.mark.parametrize(
    ("max_drop", "confidence", "named"),
    [(-1, 0.9, "max_drop"), (1, 0, "confidence"), (1, 1, "confidence"), (1, 90, "confidence")],
)
def test_values_out_of_range_are_refused(max_drop, confidence, named):
    with pytest.raises(ConfigError, match=named):
        Guarantee(max_drop, confidence)
