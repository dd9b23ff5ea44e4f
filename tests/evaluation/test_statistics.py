"""Signals that order units by their gain, and intervals over images."""

import numpy as np
import pytest

from tvit_seg.evaluation.metrics import segmentation_quality
from tvit_seg.evaluation.statistics import Calibration, Ranking, auroc, interval, resample


def ranking(signal, images=40, per_image=5, classes=3, seed=0):
    """Units whose gain differs; ``signal`` maps gains (M,) to signals."""
    rng = np.random.default_rng(seed)
    count = images * per_image
    right = rng.integers(20, 60, (count, classes))
    gain = rng.integers(-10, 30, (count, classes))

    def areas(hits):
        return np.stack((hits, 200 - hits, np.full_like(hits, 100), np.full_like(hits, 100)), 1)

    before, after = areas(right), areas(right + gain)
    owner = np.repeat(np.arange(images), per_image)
    costs = np.full(count, 2.0)
    return Ranking(signal(gain.sum(1)), owner, before, after, costs, segmentation_quality)


def test_gain_is_the_share_of_labelled_pixels():
    found = ranking(lambda gain: gain)
    assert found.gain == pytest.approx(found.signal / 300)


def test_a_curve_runs_from_the_first_to_the_last_stage():
    found = ranking(lambda gain: -gain)
    spent, quality, random = found.curve()
    first, last = (segmentation_quality(x.sum(0))["mIoU"] for x in (found.before, found.after))
    assert quality[0] == random[0] == pytest.approx(first)
    assert quality[-1] == pytest.approx(last)
    assert random[-1] == pytest.approx(last)
    assert spent == pytest.approx(np.linspace(0, 1, 51))


def test_the_true_gain_is_the_oracle_and_its_opposite_is_worse_than_random():
    assert ranking(lambda gain: gain).relative_area() == pytest.approx(1)
    assert ranking(lambda gain: -gain).area() < 0
    noise = np.random.default_rng(1)
    low, high = _interval(ranking(lambda gain: noise.uniform(size=len(gain))))
    assert low < 0 < high


def _interval(found):
    return interval(map(found.area, resample(40, resamples=200)))


def test_weights_repeat_images():
    found = ranking(lambda gain: gain + 0.0)
    weights = np.zeros(40)
    weights[[3, 7]] = 1, 2
    _, quality, _ = found.curve(weights)
    rows = np.concatenate([np.flatnonzero(found.image == i) for i in (3, 7, 7)])
    assert quality[0] == pytest.approx(segmentation_quality(found.before[rows].sum(0))["mIoU"])
    assert quality[-1] == pytest.approx(segmentation_quality(found.after[rows].sum(0))["mIoU"])


def test_rank_statistics():
    found = ranking(lambda gain: gain**3)
    assert found.spearman() == pytest.approx(1)
    assert found.auroc() == 1
    assert np.isnan(ranking(lambda gain: 0 * gain).spearman())
    assert auroc(np.array([1, 2, 3, 3]), np.array([False, True, False, True])) == 0.625
    assert np.isnan(auroc(np.arange(3), np.ones(3, bool)))


def test_a_bootstrap_covers_the_mean():
    values = np.random.default_rng(0).normal(5, 1, 400)
    low, high = interval(resample(400) @ values / 400)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_neighbours_that_agree_widen_the_interval():
    values = np.repeat(np.random.default_rng(0).normal(5, 1, 20), 20)
    widths = [np.ptp(interval(resample(400, block) @ values / 400)) for block in (1, 20)]
    assert widths[1] > 3 * widths[0]


def test_calibration():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=20000)
    exact, sure = Calibration(), Calibration()
    exact.add(confidence, rng.uniform(size=20000) < confidence)
    sure.add(np.ones(100), np.arange(100) < 70)
    assert exact.error < 0.02
    assert sure.error == pytest.approx(0.3)
    assert sure.counts[-1].tolist() == [100, 100, 70]
