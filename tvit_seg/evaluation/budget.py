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
    """An average over new images, and where it will lie.

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
            np.column_stack((sweep.costs(image), image.scores.reshape(len(image.scores), -1)))
            for image in sweep.images
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

    def averages(self, total: np.ndarray) -> dict[str, float]:
        """GMACs, milliseconds and qualities, from the totals of one step."""
        gmacs, ms = (total[:2] / self.count).tolist()
        return dict(gmacs=gmacs, ms=ms, **self.quality(total[2:].reshape(self._score_shape)))

    def pick(self, totals: np.ndarray, budget: Budget, metric: str) -> int:
        """The step that keeps a budget: the dearest for costs, the cheapest for a drop.

        Args:
            totals: From :meth:`totals`.
            budget: What may be spent or lost.
            metric: The quality that may drop.
        """
        if budget.kind == "drop":
            quality = np.array([self.averages(total)[metric] for total in totals])
            return int(np.flatnonzero(quality >= quality[0] - budget.value)[-1])
        cost = totals[:, KINDS.index(budget.kind)] / self.count
        kept = np.flatnonzero(cost <= budget.value)
        return int(kept[0]) if len(kept) else len(cost) - 1


def plan(sweep: Sweep, budget: Budget, resamples: int = 300, seed: int = 0) -> Plan:
    """Picks the threshold for a budget from calibration data.

    The interval repeats the whole procedure by bootstrap: pick on a resample of the images, look at
    another one of the same size (https://doi.org/10.1201/9780429246593, chapter 8).

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
        picked = steps.pick(steps.totals(here), budget, metric)
        outcomes.append(steps.averages(steps.totals(there)[picked]))
    return Plan(
        threshold=threshold,
        think_shares=think_shares(sweep, threshold),
        expected={
            name: Expectation(mean, *np.nanquantile([o[name] for o in outcomes], (0.025, 0.975)))
            for name, mean in steps.averages(totals[chosen]).items()
        },
    )


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
