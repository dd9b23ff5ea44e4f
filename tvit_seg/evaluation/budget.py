"""The threshold that fits a budget, and what it will cost and give on new data."""

from dataclasses import dataclass

import numpy as np

from .sweep import Sweep

KINDS = ("gmacs", "ms", "drop")
"""Average GMACs of an image, average milliseconds, points of quality below always thinking."""


@dataclass(frozen=True)
class Budget:
    """What may be spent or lost.

    Attributes:
        kind: One of ``KINDS``.
        value: The most of it, >= 0.

    Raises:
        ValueError: If the kind is unknown or the value negative or NaN.
    """

    kind: str
    value: float

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"budget kind {self.kind!r} must be one of {KINDS}")
        if not self.value >= 0:
            raise ValueError(f"budget {self.kind}={self.value} must be a number >= 0")


@dataclass(frozen=True)
class Expectation:
    """An average over new images, and where it will lie (timing noise left out).

    Attributes:
        mean: What the calibration images say.
        low: Below this in 2.5 % of new sets of as many images.
        high: Above this in 2.5 % of them.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Plan:
    """A threshold for a budget.

    Attributes:
        threshold: In nats.
        think_shares: Of the images (windows) that reach a stage, the share that thinks on.
        expected: GMACs, milliseconds and qualities to expect on new data.
    """

    threshold: float
    think_shares: list[float]
    expected: dict[str, Expectation]


class Steps:
    """Total cost and scores of weighted images as step functions of the threshold.

    From step to step one more window (those with the same entropy at once) stops earlier.

    Args:
        sweep: The calibration data.

    Attributes:
        thresholds: (E + 1,) one from within each step; the first is 0.
    """

    def __init__(self, sweep: Sweep):
        self.quality = sweep.judge.quality
        self._score_shape = sweep.images[0].scores.shape[1:]
        values = [
            np.column_stack((costs, image.scores.reshape(len(image.scores), -1)))
            for costs, image in zip(sweep.costs, sweep.images, strict=True)
        ]
        breaks = np.concatenate([image.breaks for image in sweep.images])
        owners = np.repeat(np.arange(len(values)), [len(image.breaks) for image in sweep.images])
        order = breaks.argsort(kind="stable")
        breaks, self._owner = breaks[order], owners[order]
        self._change = np.concatenate([np.diff(v, axis=0) for v in values])[order]  # (E, F)
        self._start = np.stack([v[0] for v in values])  # (images, F), where all think
        # after the last of equal entropies
        self._ends = np.flatnonzero(np.append(breaks[1:] > breaks[:-1], True))
        self.thresholds = _between(breaks[self._ends])

    def __len__(self) -> int:
        return len(self.thresholds)

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self._start)

    def totals(self, weights: np.ndarray) -> np.ndarray:
        """Sums over images at every step: (E + 1, 2 + ...) GMACs, milliseconds, scores.

        Args:
            weights: (images,) how often each image counts.
        """
        start = weights @ self._start
        steps = np.cumsum(self._change * weights[self._owner, None], axis=0)[self._ends]
        return np.concatenate((start[None], start + steps))

    def averages(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """GMACs, milliseconds and qualities (...), from totals (..., 2 + ...)."""
        gmacs, ms = np.moveaxis(totals[..., :2] / self.count, -1, 0)
        scores = totals[..., 2:].reshape(*totals.shape[:-1], *self._score_shape)
        return dict(gmacs=gmacs, ms=ms, **self.quality(scores))

    def pick(self, totals: np.ndarray, budget: Budget, metric: str) -> int:
        """The step that keeps a budget: the dearest for costs, the cheapest for a drop.

        Args:
            totals: From :meth:`totals`.
            budget: What may be spent or lost.
            metric: The quality that may drop.
        """
        if budget.kind == "drop":
            quality = self.averages(totals)[metric]
            kept = np.flatnonzero(quality >= quality[0] - budget.value)
            return int(kept[-1]) if len(kept) else 0  # no label at all: nothing to compare
        cost = totals[:, KINDS.index(budget.kind)] / self.count
        kept = np.flatnonzero(cost <= budget.value)
        return int(kept[0]) if len(kept) else len(cost) - 1


def plan(sweep: Sweep, budget: Budget, resamples: int = 300, seed: int = 0) -> Plan:
    """Picks the threshold for a budget from calibration data.

    The interval repeats the whole procedure by bootstrap (Efron and Tibshirani,
    https://doi.org/10.1201/9780429246593): pick on a resample of the images, look at another one of
    the same size, and see how far it is from what the first one promised.

    Args:
        sweep: The calibration data.
        budget: What may be spent or lost on average.
        resamples: Number of repetitions.
        seed: Of the resampling.

    Returns:
        Threshold and expectation.

    Raises:
        ValueError: If there are fewer than 2 images, or the budget is below the cheapest stage or
            above the full cost.
    """
    steps = Steps(sweep)
    if steps.count < 2:
        raise ValueError(f"{steps.count} image is no calibration set: at least 2 are needed")
    totals = steps.totals(np.ones(steps.count))
    _check_reachable(steps, totals, budget)
    metric = sweep.judge.headline
    chosen = steps.pick(totals, budget, metric)
    threshold = float(steps.thresholds[chosen])
    rng = np.random.default_rng(seed)
    outcomes = []
    for _ in range(resamples):
        here, there = rng.multinomial(steps.count, [1 / steps.count] * steps.count, size=2)
        known = steps.totals(here)
        picked = steps.pick(known, budget, metric)
        promised, came = (steps.averages(x[picked]) for x in (known, steps.totals(there)))
        outcomes.append({name: came[name] - promised[name] for name in came})
    expected = {}
    for name, mean in steps.averages(totals[chosen]).items():
        off = np.nanquantile([outcome[name] for outcome in outcomes], (0.025, 0.975))
        expected[name] = Expectation(float(mean), *(mean + off).tolist())
    shares = think_shares(sweep, threshold)
    if budget.kind != "drop" and chosen > 0:
        # what a BudgetGate can spend to the last bit lies between this step and the one before
        cost = totals[[chosen, chosen - 1], KINDS.index(budget.kind)] / steps.count
        part = float((budget.value - cost[0]) / (cost[1] - cost[0]))
        above = think_shares(sweep, float(steps.thresholds[chosen - 1]))
        shares = [(1 - part) * one + part * other for one, other in zip(shares, above, strict=True)]
    return Plan(threshold=threshold, think_shares=shares, expected=expected)


def think_shares(sweep: Sweep, threshold: float) -> list[float]:
    """Of the images (windows) that reach a stage, the share that thinks on; 0 where none does."""
    exits = np.concatenate([image.exits[image.at(threshold)] for image in sweep.images])
    shares = []
    for stage in range(sweep.num_stages - 1):
        here = (exits >= stage).sum()
        shares.append(float((exits > stage).sum() / here) if here else 0.0)
    return shares


def _check_reachable(steps: Steps, totals: np.ndarray, budget: Budget) -> None:
    if budget.kind == "drop":
        return
    full, least = (totals[[0, -1], KINDS.index(budget.kind)] / steps.count).tolist()
    if not least <= budget.value <= full:
        raise ValueError(
            f"a budget of {budget.value:g} {budget.kind} is out of reach: an image costs from "
            f"{least:.4g} (all stop at once) to {full:.4g} (all think to the end)"
        )


def _between(breaks: np.ndarray) -> np.ndarray:
    """(E + 1,) a threshold within each step, halfway where float32 has room."""
    if not len(breaks):
        return np.zeros(1)
    halfway = ((breaks[:-1] + breaks[1:]) / 2).astype(np.float32)
    inner = np.where(halfway > breaks[:-1], halfway, breaks[1:])
    return np.concatenate(([0.0], inner, [breaks[-1] + 1]))
