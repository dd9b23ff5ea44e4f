"""A threshold whose loss of accuracy on new images is bounded with a chosen confidence."""

from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from ..utils.checks import check, check_integer, check_number
from .budget import Plan, Steps, think_shares
from .sweep import Sweep

GRID = np.linspace(0, 10, 5001, dtype=np.float32)
"""Candidate thresholds in nats: fixed, as candidates that follow the data void the guarantee."""


@dataclass(frozen=True)
class Guarantee:
    """Limit on the mean loss of accuracy per image against always thinking.

    Attributes:
        max_drop: In points of an image's accuracy (of its pixels, or top-1), in [0, 100].
        confidence: Probability that the limit holds on new images like the calibration images, in
            (0, 1). The calibration images are drawn anew in each repetition.
    """

    max_drop: float
    confidence: float

    def __post_init__(self):
        check_number("max_drop", self.max_drop, maximum=100)
        fits = check_number("confidence", self.confidence, maximum=1) not in (0, 1)
        check(fits, "confidence", self.confidence, "above 0 and below 1")

    def __str__(self) -> str:
        return f"a mean drop of {self.max_drop:g} points of accuracy, {self.confidence:.0%} sure,"


def guaranteed_threshold(sweep: Sweep, guarantee: Guarantee) -> float:
    """Largest threshold that keeps a guarantee; 0 (always think) if none does.

    Candidates are tested in increasing order up to the first that fails (fixed sequence testing in
    Learn then Test, https://arxiv.org/abs/2110.01052), each by a betting bound on the mean of
    bounded losses (https://arxiv.org/abs/2010.09686). Images must be exchangeable: frames of one
    video are not.
    """
    return _largest_safe(_drops(sweep), guarantee)


def guaranteed_plan(sweep: Sweep, guarantee: Guarantee) -> Plan:
    """Plan with the threshold of :func:`guaranteed_threshold`."""
    threshold = guaranteed_threshold(sweep, guarantee)
    steps = Steps(sweep)
    chosen = int(np.searchsorted(steps.breaks, np.float32(threshold)))
    expected = steps.expect(chosen, lambda totals: chosen)
    return Plan(threshold, think_shares(sweep, threshold), expected)


@dataclass(frozen=True)
class Violations:
    """Held-out results of a guarantee.

    Attributes:
        guarantee: The one tried.
        thresholds: (N,) of the calibration halves, in nats.
        drops: (N,) mean loss of accuracy on the other halves, in points.
        costs: (N,) GMACs on the other halves, as a share of those of always thinking.
    """

    guarantee: Guarantee
    thresholds: np.ndarray
    drops: np.ndarray
    costs: np.ndarray

    @property
    def rate(self) -> float:
        """Share of the splits that lose more than the limit."""
        return float((self.drops > self.guarantee.max_drop).mean())

    def __str__(self) -> str:
        count, allowed = len(self.drops), 1 - self.guarantee.confidence
        return (
            f"{count} random halves: the held-out half loses more than "
            f"{self.guarantee.max_drop:g} points in {self.rate:.1%} (allowed {allowed:.1%}, "
            f"standard error {np.sqrt(allowed * (1 - allowed) / count):.1%})\n"
            f"  median threshold {np.median(self.thresholds):.4g}, "
            f"loss {np.median(self.drops):.2f} points, "
            f"GMACs {np.median(self.costs):.1%} of always thinking"
        )


def try_guarantee(
    sweep: Sweep, guarantee: Guarantee, count: int = 200, seed: int = 0
) -> Violations:
    """Calibrate on ``count`` random halves of the images and measure the others."""
    check_integer("splits", count)
    check(len(sweep.images) >= 4, "number of images", len(sweep.images), "at least 4")
    rng = np.random.default_rng(seed)
    drops, found = _drops(sweep), []
    for _ in tqdm(range(count), desc="splits"):
        here, there = np.array_split(rng.permutation(len(drops)), 2)
        threshold = _largest_safe(drops[here], guarantee)
        held_out = replace(sweep, images=[sweep.images[i] for i in there])
        cost = held_out.row(threshold)["gmacs"] / held_out.row(0.0)["gmacs"]
        column = np.searchsorted(GRID, threshold)
        found.append((threshold, 100 * drops[there, column].mean(), cost))
    return Violations(guarantee, *np.array(found).T)


def _drops(sweep: Sweep) -> np.ndarray:
    """Losses of accuracy against always thinking at each candidate, (images, G) in [-1, 1]."""
    check(sweep.labelled, "labels", None, "known for a guarantee")
    drops = []
    for image in sweep.images:
        correct = sweep.evaluator.correct(image.scores)
        drops.append((correct[0] - correct)[np.searchsorted(image.breaks, GRID)])
    return np.stack(drops)


def _largest_safe(drops: np.ndarray, guarantee: Guarantee) -> float:
    """Last candidate before the first whose losses, in ``drops`` (images, G), may be too high."""
    level = 1 - guarantee.confidence
    order = np.random.default_rng(0).permutation(len(drops))
    safe = _p_values(drops[order], guarantee.max_drop / 100, level) <= level
    safe[0] = True  # always thinking loses nothing
    return float(GRID[-1] if safe.all() else GRID[safe.argmin() - 1])


def _p_values(losses: np.ndarray, limit: float, level: float) -> np.ndarray:
    """P-values (G,) of "the mean loss is above the limit", for losses (n, G) in [-1, 1].

    A bettor wins where a loss is below the limit and stakes more the less the losses so far vary.
    If the mean were above the limit, the largest capital would exceed 1/p with probability p at
    most.
    """
    count = len(losses)
    number = np.arange(2, count + 2)[:, None]
    # as if one loss, 0.1 from a mean of 0, had come before the others
    mean = np.cumsum(losses, axis=0) / number
    variance = (0.1**2 + np.cumsum((losses - mean) ** 2, axis=0)) / number
    known = np.concatenate((np.full_like(variance[:1], 0.1**2), variance[:-1]))
    # the capital stays positive even if an image loses everything
    stakes = np.minimum(np.sqrt(2 * np.log(1 / level) / (count * known)), 0.9)
    capital = np.cumprod(1 + stakes * (limit - losses), axis=0).max(axis=0)
    return np.minimum(1, 1 / capital)
