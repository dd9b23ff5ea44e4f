"""Value of a signal that orders images, windows or tokens by how much the next stage may gain."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.stats import rankdata, spearmanr

from .curves import Quality


@dataclass
class Ranking:
    """Two stages on M units (images, windows or tokens), and a signal that orders the units.

    Attributes:
        signal: (M,); units with higher values run the later stage first.
        image: (M,) index of the image, from 0, that a unit belongs to.
        before: (M, 4, K) intersection, union, prediction and label areas after the earlier stage.
        after: (M, 4, K) the same after the later stage.
        costs: (M,) GMACs that the later stage adds.
        quality: Maps summed counts (..., 4, K) to qualities in per cent.
        name: Of the quality to integrate.
        steps: Number of intervals of the curve.
    """

    signal: np.ndarray
    image: np.ndarray
    before: np.ndarray
    after: np.ndarray
    costs: np.ndarray
    quality: Quality = field(repr=False)
    name: str = "mIoU"
    steps: int = 50

    @cached_property
    def gain(self) -> np.ndarray:
        """(M,) share of a unit's labelled pixels that the later stage adds to the correct ones."""
        labelled = self.before[:, 3].sum(-1).clip(min=1)
        return (self.after - self.before)[:, 0].sum(-1) / labelled

    def spearman(self) -> float:
        """Rank correlation of signal and gain; NaN if either is constant."""
        if np.ptp(self.signal) == 0 or np.ptp(self.gain) == 0:
            return float("nan")
        return float(spearmanr(self.signal, self.gain).statistic)

    def auroc(self) -> float:
        """Probability that the signal of a unit that gains is above that of one that does not."""
        return auroc(self.signal, self.gain > 0)

    def curve(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        """Curve from no unit to all, at steps + 1 points.

        Args:
            weights: (images,), counts each image that many times.

        Returns:
            Share of the cost spent, quality, and expected quality of random units at that cost.
        """
        return self._curve(self._own, weights)

    def oracle_curve(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        """Curve of units in the order of their gain per cost."""
        return self._curve(self._oracle, weights)

    def area(self, weights: np.ndarray | None = None) -> float:
        """Points of quality above random units at equal cost, averaged over costs."""
        return _area(*self.curve(weights))

    def relative_area(self, weights: np.ndarray | None = None) -> float:
        """Area as a share of the oracle's; random units have 0."""
        oracle = _area(*self.oracle_curve(weights))
        return self.area(weights) / oracle if oracle > 0 else float("nan")

    @cached_property
    def _own(self) -> tuple[np.ndarray, np.ndarray]:
        return self._totals(self.signal)

    @cached_property
    def _oracle(self) -> tuple[np.ndarray, np.ndarray]:
        return self._totals((self.after - self.before)[:, 0].sum(-1) / self.costs)

    def _totals(self, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Counts (images, steps + 1, 4, K) and costs (images, steps + 1) along the order."""
        images = int(self.image.max()) + 1
        rank = rankdata(-signal, method="ordinal") - 1
        step = 1 + rank * self.steps // len(rank)  # the step from which a unit runs the later stage
        counts = np.zeros((images, self.steps + 1, *self.before.shape[1:]))
        np.add.at(counts, (self.image, 0), self.before)
        np.add.at(counts, (self.image, step), self.after - self.before)
        costs = np.zeros((images, self.steps + 1))
        np.add.at(costs, (self.image, step), self.costs)
        return counts.cumsum(1), costs.cumsum(1)

    def _curve(
        self, totals: tuple[np.ndarray, np.ndarray], weights: np.ndarray | None
    ) -> tuple[np.ndarray, ...]:
        counts, costs = totals
        weights = np.ones(len(counts)) if weights is None else weights
        counts, spent = np.tensordot(weights, counts, 1), weights @ costs
        spent = spent / spent[-1]
        mixed = counts[0] + spent[:, None, None] * (counts[-1] - counts[0])
        quality, random = (np.asarray(self.quality(x)[self.name]) for x in (counts, mixed))
        return spent, quality, random


def auroc(signal: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve of a signal (M,) for labels (M,) bool; NaN if one kind is missing.

    It is the share of pairs in the right order (https://en.wikipedia.org/wiki/Mann-Whitney_U_test).
    """
    count = int(positive.sum())
    pairs = count * (len(positive) - count)
    if not pairs:
        return float("nan")
    return float((rankdata(signal)[positive].sum() - count * (count + 1) / 2) / pairs)


def resample(count: int, block: int = 1, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Draw images with replacement.

    Args:
        count: Number of images.
        block: Number of neighbouring images that are drawn together, for frames of videos (block
            bootstrap, https://doi.org/10.1214/aos/1176347265).
        resamples: Number of draws.
        seed: Of the draws.

    Returns:
        (resamples, count), how often each image occurs in each draw.
    """
    rng = np.random.default_rng(seed)
    blocks = np.arange(count) // block
    number = blocks[-1] + 1
    return rng.multinomial(number, [1 / number] * number, resamples)[:, blocks].astype(float)


def interval(values: Iterable[float], confidence: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the values that draws gave."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(list(values), (tail, 1 - tail))
    return float(low), float(high)


@dataclass
class Calibration:
    """Confidences and hits of predictions, in bins of equal width.

    Attributes:
        counts: (bins, 3) number of predictions, sum of confidences, number of correct ones.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros((15, 3)))

    def add(self, confidence: np.ndarray, correct: np.ndarray) -> None:
        """Count predictions with confidences (n,) in [0, 1] that are correct (n,) or not."""
        bins = len(self.counts)
        index = np.minimum((confidence * bins).astype(int), bins - 1)
        for column, weights in enumerate((None, confidence, correct)):
            self.counts[:, column] += np.bincount(index, weights, bins)

    @property
    def error(self) -> float:
        """Expected calibration error (https://arxiv.org/abs/1706.04599), in [0, 1]."""
        number, confidence, correct = self.counts.T
        return float(abs(confidence - correct).sum() / max(number.sum(), 1))


def _area(spent: np.ndarray, quality: np.ndarray, random: np.ndarray) -> float:
    return float(np.trapezoid(quality - random, spent))
