"""Whether a budget holds: calibrate on one random half of the images, look at the other."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm

from ..models.gates import BudgetGate, EntropyGate
from ..thinking import StageOutput
from .budget import KINDS, Budget, plan
from .sweep import Seen, Sweep


@dataclass(frozen=True)
class Splits:
    """What came of a budget on held-out halves.

    Attributes:
        kind: Of the budget.
        target: The budget, or for a drop what the calibration half expected, for each split.
        fixed: What the picked threshold gave on the other half.
        adaptive: What a ``BudgetGate`` gave there; only for budgets of cost.
        inside: For how many splits ``fixed`` lay in the expected interval.
    """

    kind: str
    target: np.ndarray
    fixed: np.ndarray
    adaptive: np.ndarray | None
    inside: int

    def __str__(self) -> str:
        lines = [f"{len(self.target)} random halves, held-out {self.kind} against the target:"]
        lines += [
            f"  {name}: {values.mean():+.1%} on average, {abs(values).max():.1%} at most"
            for name, values in self.deviations().items()
        ]
        lines.append(f"  fixed threshold inside its interval: {self.inside} of {len(self.target)}")
        return "\n".join(lines)

    def deviations(self) -> dict[str, np.ndarray]:
        """Relative deviations from the target, of each split."""
        found = {"fixed threshold": self.fixed / self.target - 1}
        if self.adaptive is not None:
            found["BudgetGate"] = self.adaptive / self.target - 1
        return found


def try_splits(sweep: Sweep, budget: Budget, count: int, seed: int = 0) -> Splits:
    """Repeats calibration and a look at new data.

    Args:
        sweep: All images.
        budget: What may be spent or lost on average.
        count: Number of random splits into halves.
        seed: Of the splits.

    Raises:
        ValueError: As in :func:`plan`, for a half of the images; or if there is no split.
    """
    if count < 1:
        raise ValueError(f"{count} splits: at least 1 is needed")
    rng = np.random.default_rng(seed)
    metric = budget.kind if budget.kind in KINDS[:2] else sweep.judge.headline
    found = []
    for _ in tqdm(range(count), desc="splits"):
        order = rng.permutation(len(sweep.images))
        here, there = (
            replace(sweep, images=[sweep.images[i] for i in sorted(half)])
            for half in np.array_split(order, 2)
        )
        chosen = plan(here, budget)
        expected = chosen.expected[metric]
        value = there.row(chosen.threshold)[metric]
        adaptive = None
        if metric == budget.kind:
            adaptive = _stream(there, chosen.threshold, chosen.think_shares, metric)
        target = budget.value if metric == budget.kind else expected.mean
        found.append((target, value, adaptive, expected.low <= value <= expected.high))
    target, fixed, adaptive, inside = zip(*found, strict=True)
    return Splits(
        kind=metric,
        target=np.array(target),
        fixed=np.array(fixed),
        adaptive=None if adaptive[0] is None else np.array(adaptive),
        inside=sum(inside),
    )


def _stream(sweep: Sweep, threshold: float, think_shares: list[float], kind: str) -> float:
    """Average cost when a ``BudgetGate`` sees the images one after the other."""
    gate = BudgetGate(EntropyGate(threshold), think_shares)
    costs = []
    for image in sweep.images:
        exits = _exits(gate, image)
        ms = sweep.stage_ms[image.look.shape]
        costs.append((image.look.gmacs if kind == "gmacs" else ms)[exits].sum())
    return float(np.mean(costs))


def _exits(gate: BudgetGate, image: Seen) -> np.ndarray:
    """(W,) where the windows of an image stop, by their measured entropies."""
    windows, stages = image.look.entropy.shape
    exits = np.full(windows, stages - 1)
    active = np.arange(windows)
    for stage in range(stages - 1):
        seen = torch.from_numpy(image.look.entropy[active, stage])
        stop = gate.stop(StageOutput(stage, stages, None, (), None), seen).numpy()
        exits[active[stop]] = stage
        active = active[~stop]
    return exits
