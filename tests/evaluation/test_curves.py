"""Yardsticks of a sweep, and Pareto fronts."""

import numpy as np
import pytest

from tvit_seg.evaluation import curves, pareto_front
from tvit_seg.evaluation.stages import SegmentationEvaluator

quality, correct = SegmentationEvaluator.quality, SegmentationEvaluator.correct


def both(gmacs):
    """Costs in GMACs, and in milliseconds ten times as many."""
    return np.stack((gmacs, 10 * np.asarray(gmacs)), axis=-1)


def single_stages(scores, gmacs):
    return curves.single_stages(scores, both(gmacs), quality)


def random_gate(scores, gmacs):
    return curves.random_gate(scores, both(gmacs), quality)


def oracle_gate(scores, gmacs):
    choices = list(zip(scores, both(gmacs), strict=True))
    return curves.oracle_gate(choices, quality, correct)


def gap(gate, oracle):
    return curves.gap(gate, oracle, "mIoU")


def areas(*correct, pixels=10):
    """One class: correct pixels of each image in each stage, as (images, stages, 4, 1)."""
    correct = np.array(correct, float)[..., None]
    full = np.full_like(correct, pixels)
    return np.stack([correct, full, full, full], axis=2)


# the second stage helps a lot, a bit, not, and harms
AREAS = areas([2, 10], [8, 9], [5, 5], [9, 8])
COSTS = np.tile([1.0, 4.0], (4, 1))


def test_oracle_chooses_between_any_two_stages():
    """The third stage is worth its price after the second, though not after the first."""
    curve = oracle_gate(areas([0, 6, 10], [5, 5, 5]), np.tile([1.0, 2.0, 9.0], (2, 1)))
    assert [p["gmacs"] for p in curve] == [1.0, 1.5, 5.0, 9.0]


def test_single_stages():
    points = single_stages(AREAS, COSTS)
    assert [p["gmacs"] for p in points] == [1, 4]
    assert [p["ms"] for p in points] == [10, 40]
    assert [p["mIoU"] for p in points] == pytest.approx([60, 80])


def test_random_gate_runs_between_the_single_stages():
    curve = random_gate(AREAS, COSTS)
    assert (curve[0], curve[-1]) == tuple(single_stages(AREAS, COSTS))
    assert curve[5]["gmacs"] == pytest.approx(2.5)
    assert curve[5]["mIoU"] == pytest.approx(70)


def test_oracle_spends_most_on_the_largest_gain():
    curve = oracle_gate(AREAS, COSTS)
    found = {round(p["gmacs"], 2): p["mIoU"] for p in curve}
    assert found[1.75] == pytest.approx(80)  # the first image alone
    assert found[2.5] == pytest.approx(82.5)  # and the second: better than thinking always
    single = single_stages(AREAS, COSTS)
    assert min(found) == single[0]["gmacs"]


def test_oracle_is_never_below_the_random_gate():
    rng = np.random.default_rng(0)
    correct = rng.integers(0, 100, (50, 3))
    costs = np.tile([1.0, 2.0, 5.0], (50, 1))
    some = areas(*correct, pixels=100)
    assert gap(random_gate(some, costs), oracle_gate(some, costs)) > 0


def test_one_stage():
    curve = oracle_gate(areas([3], [4]), np.ones((2, 1)))
    assert curve == single_stages(areas([3], [4]), np.ones((2, 1)))
    assert gap(curve, curve) == 0


def points(*pairs):
    return [dict(gmacs=gmacs, mIoU=miou) for gmacs, miou in pairs]


@pytest.mark.parametrize(
    ("given", "front"),
    [
        ([(1, 30), (1, 30), (2, 29), (3, 31)], [(1, 30), (3, 31)]),
        ([(1, 30), (1, 35), (2, 35)], [(1, 35)]),
        ([(1, float("nan")), (float("nan"), 90), (2, 10)], [(2, 10)]),
    ],
)
def test_pareto_front(given, front):
    assert pareto_front(points(*given)) == points(*front)


def test_pareto_front_of_other_keys():
    given = [dict(ms=2, top1=70.0, keep_ratio=0.7), dict(ms=1, top1=71.0, keep_ratio=0.5)]
    assert pareto_front(given, cost="ms", quality="top1") == given[1:]
