"""The threshold that fits a budget, and its cost and quality on new images."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm

from ..errors import ConfigError
from ..models.gates import BudgetGate, EntropyGate
from ..thinking import StageOutput
from ..utils.checks import check, check_choice, check_integer, check_number
from .sweep import Sweep

KINDS = ("gmacs", "ms", "drop")
"""Average GMACs of an image, average milliseconds, points of quality below always thinking."""


@dataclass(frozen=True)
class Budget:
    """A limit >= 0 on cost or on the loss of quality, of one of ``KINDS``."""

    kind: str
    value: float

    def __post_init__(self):
        check_choice("budget kind", self.kind, KINDS)
        check_number(f"budget {self.kind}", self.value)

    def __str__(self) -> str:
        return f"{self.kind} {self.value:g}"

    @property
    def is_cost(self) -> bool:
        return self.kind != "drop"


@dataclass(frozen=True)
class Expectation:
    """Average of the calibration images, and the interval for 95 % of new sets of as many images.

    Timing noise is left out.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Plan:
    """A threshold for a budget.

    Attributes:
        threshold: In nats.
        think_shares: Of the images (windows) that reach a stage, the share that continues.
        expected: GMACs, milliseconds and qualities to expect on new data.
    """

    threshold: float
    think_shares: list[float]
    expected: dict[str, Expectation]


class Steps:
    """Total cost and scores of weighted images as step functions of the threshold.

    From step to step one more window (or all with the same entropy) exits earlier.

    Attributes:
        count: Number of images.
        breaks: (E,) entropies between the steps.
        thresholds: (E + 1,), one inside each step; the first is 0.
    """

    def __init__(self, sweep: Sweep):
        self.count = len(sweep.images)
        self.quality = sweep.quality
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
        self.breaks = breaks[self._ends]
        self.thresholds = _between(self.breaks)

    def totals(self, weights: np.ndarray) -> np.ndarray:
        """Sum images, counted ``weights`` (images,) times, at every step.

        Returns:
            (E + 1, 2 + ...) GMACs, milliseconds, scores.
        """
        start = weights @ self._start
        steps = np.cumsum(self._change * weights[self._owner, None], axis=0)[self._ends]
        return np.concatenate((start[None], start + steps))

    def averages(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Compute GMACs, milliseconds and qualities (...) from totals (..., 2 + ...)."""
        gmacs, ms = np.moveaxis(totals[..., :2] / self.count, -1, 0)
        scores = totals[..., 2:].reshape(*totals.shape[:-1], *self._score_shape)
        return dict(gmacs=gmacs, ms=ms, **self.quality(scores))

    def cost(self, totals: np.ndarray, budget: Budget) -> np.ndarray:
        """Average cost (E + 1,) of the budget's kind."""
        return totals[:, KINDS.index(budget.kind)] / self.count

    def pick(self, totals: np.ndarray, budget: Budget, metric: str) -> int:
        """Pick the step that keeps a budget: for costs the most expensive, else the cheapest."""
        if not budget.is_cost:
            quality = self.averages(totals)[metric]
            kept = np.flatnonzero(quality >= quality[0] - budget.value)
            return int(kept[-1]) if len(kept) else 0  # no label at all: nothing to compare
        kept = np.flatnonzero(self.cost(totals, budget) <= budget.value)
        return int(kept[0]) if len(kept) else len(totals) - 1

    def expect(
        self,
        chosen: int,
        pick: Callable[[np.ndarray], int],
        resamples: int = 300,
        seed: int = 0,
    ) -> dict[str, Expectation]:
        """Cost and qualities to expect on new images, with intervals.

        A bootstrap of the whole procedure (Efron and Tibshirani,
        https://doi.org/10.1201/9780429246593): pick on a resample of the images, evaluate on
        another one of the same size, and take the difference.

        Args:
            chosen: The step picked on all images.
            pick: Picks a step from the totals of a resample.
            resamples: Number of pairs of resamples.
            seed: Of the resamples.
        """
        rng = np.random.default_rng(seed)
        errors = []
        for _ in range(resamples):
            here, there = rng.multinomial(self.count, [1 / self.count] * self.count, size=2)
            known = self.totals(here)
            picked = pick(known)
            promised, found = (self.averages(x[picked]) for x in (known, self.totals(there)))
            errors.append({name: found[name] - promised[name] for name in found})
        expected = {}
        for name, mean in self.averages(self.totals(np.ones(self.count))[chosen]).items():
            interval = np.nanquantile([error[name] for error in errors], (0.025, 0.975))
            expected[name] = Expectation(float(mean), *(mean + interval).tolist())
        return expected


def plan(sweep: Sweep, budget: Budget, resamples: int = 300, seed: int = 0) -> Plan:
    """Pick the threshold for a budget from calibration data, with the intervals of `Steps.expect`.

    Raises:
        ConfigError: There are fewer than 2 images, or the budget is below the cheapest stage or
            above the full cost.
    """
    steps = Steps(sweep)
    check(budget.is_cost or sweep.labelled, "budget", str(budget), "a cost without any label")
    check(steps.count >= 2, "number of calibration images", steps.count, "at least 2")
    totals = steps.totals(np.ones(steps.count))
    if budget.is_cost:
        least, full = steps.cost(totals, budget)[[-1, 0]].tolist()
        if not least <= budget.value <= full:
            raise ConfigError(
                f"a budget of {budget.value:g} {budget.kind} is out of reach: an image costs from "
                f"{least:.4g} (all stop at once) to {full:.4g} (all think to the end)"
            )
    metric = sweep.evaluator.headline

    def pick(totals: np.ndarray) -> int:
        return steps.pick(totals, budget, metric)

    chosen = pick(totals)
    threshold = float(steps.thresholds[chosen])
    expected = steps.expect(chosen, pick, resamples, seed)
    shares = think_shares(sweep, threshold)
    if budget.is_cost and chosen > 0:
        # a BudgetGate can spend exactly the budget, between this step and the one before
        cost, dearer = steps.cost(totals, budget)[[chosen, chosen - 1]]
        part = float((budget.value - cost) / (dearer - cost))
        above = think_shares(sweep, float(steps.thresholds[chosen - 1]))
        shares = [(1 - part) * one + part * other for one, other in zip(shares, above, strict=True)]
    return Plan(threshold=threshold, think_shares=shares, expected=expected)


def think_shares(sweep: Sweep, threshold: float) -> list[float]:
    """Of the images (windows) that reach a stage, the share that continues; 0 if none does."""
    exits = np.concatenate([image.exits[image.at(threshold)] for image in sweep.images])
    shares = []
    for stage in range(sweep.num_stages - 1):
        here = (exits >= stage).sum()
        shares.append(float((exits > stage).sum() / here) if here else 0.0)
    return shares


def _between(breaks: np.ndarray) -> np.ndarray:
    """A threshold inside each of the (E + 1,) steps, halfway if float32 can represent it."""
    if not len(breaks):
        return np.zeros(1)
    halfway = ((breaks[:-1] + breaks[1:]) / 2).astype(np.float32)
    inner = np.where(halfway > breaks[:-1], halfway, breaks[1:])
    return np.concatenate(([0.0], inner, [breaks[-1] + 1]))


@dataclass(frozen=True)
class Splits:
    """Results of a budget on held-out halves.

    Attributes:
        metric: GMACs, milliseconds, or the quality of a drop.
        deviations: Relative deviations of each split from the target (the budget, or for a drop
            the calibration half's expectation): of the fixed threshold and, for costs, of a
            ``BudgetGate``.
        inside: For each split, True if the fixed threshold's result is in the expected interval.
    """

    metric: str
    deviations: dict[str, np.ndarray]
    inside: list[bool]

    def __str__(self) -> str:
        count = len(self.inside)
        lines = [f"{count} random halves, held-out {self.metric} against the target:"]
        lines += [
            f"  {name}: {values.mean():+.1%} on average, {abs(values).max():.1%} at most"
            for name, values in self.deviations.items()
        ]
        lines.append(f"  fixed threshold inside its interval: {sum(self.inside)} of {count}")
        return "\n".join(lines)


def try_splits(sweep: Sweep, budget: Budget, count: int, seed: int = 0) -> Splits:
    """Calibrate on ``count`` random halves of the images and evaluate on the others."""
    check_integer("splits", count)
    rng = np.random.default_rng(seed)
    metric = budget.kind if budget.is_cost else sweep.evaluator.headline
    deviations, inside = defaultdict(list), []
    for _ in tqdm(range(count), desc="splits"):
        order = rng.permutation(len(sweep.images))
        here, there = (
            replace(sweep, images=[sweep.images[i] for i in sorted(half)])
            for half in np.array_split(order, 2)
        )
        chosen = plan(here, budget)
        expected = chosen.expected[metric]
        fixed = there.row(chosen.threshold)[metric]
        target = budget.value if budget.is_cost else expected.mean
        deviations["fixed threshold"].append(fixed / target - 1)
        if budget.is_cost:
            adaptive = _adaptive_cost(there, chosen, budget)
            deviations["BudgetGate"].append(adaptive / target - 1)
        inside.append(expected.low <= fixed <= expected.high)
    return Splits(metric, {name: np.array(x) for name, x in deviations.items()}, inside)


def _adaptive_cost(sweep: Sweep, chosen: Plan, budget: Budget) -> float:
    """Average cost of a ``BudgetGate`` on the images, one after the other."""
    gate = BudgetGate(EntropyGate(chosen.threshold), chosen.think_shares)
    exits = [_stop_windows(gate, image.predictions.entropy) for image in sweep.images]
    pairs = zip(sweep.window_costs, exits, strict=True)
    return float(np.mean([costs[e, KINDS.index(budget.kind)].sum() for costs, e in pairs]))


def _stop_windows(gate: BudgetGate, entropy: np.ndarray) -> np.ndarray:
    """Exit stages (W,) of an image's windows, from their entropies (W, number of stages)."""
    windows, stages = entropy.shape
    exits = np.full(windows, stages - 1)
    active = np.arange(windows)
    for stage in range(stages - 1):
        output = StageOutput(stage, stages, None, (), None)
        stop = gate.stop(output, torch.from_numpy(entropy[active, stage])).numpy()
        exits[active[stop]] = stage
        active = active[~stop]
    return exits
