"""Gate that keeps a target continue rate even if the data drifts."""

from collections import deque
from collections.abc import Sequence
from math import isnan

import numpy as np
import torch
from torch import Tensor

from ...registry import GATES
from ...utils.checks import check, check_integer, check_number
from .base import Gate, build_gate, check_count, check_per_stage

_FEW = 16  # entropies needed for a meaningful quantile


@GATES.register_module()
class BudgetGate(Gate):
    """Let a given share of the images continue, those with the highest recent entropies.

    The threshold of each stage is a running quantile of its latest entropies, so it follows data
    that drifts. If the continue rate would deviate from the target by more than the tolerance (by
    more than one image, while there are few), the count overrules the threshold, so the rate holds
    at any time, not only in the long run. This fixes the average cost too, for images of one size
    and for sliding windows.

    Images are processed in the order they arrive: batches of any size give the same decisions, but
    a decision depends on the images before it. Every process has its own history, and starts a new
    one for each validation or test.

    Args:
        gate: Gate, or its config, that measures entropies; its threshold applies until enough
            entropies are known.
        think_shares: Continue rate in [0, 1] of the images that reach a stage; one for all stages
            or one for each but the last.
        window: Number of latest entropies for the quantile, >= 16.
        tolerance: Allowed deviation of the rate, in [0, 1].
    """

    def __init__(
        self,
        gate: Gate | dict,
        think_shares: float | Sequence[float],
        window: int = 256,
        tolerance: float = 0.01,
    ):
        super().__init__()
        self.gate = build_gate(gate)
        check(hasattr(self.gate, "threshold"), "BudgetGate gate", gate, "a gate with a threshold")
        self.think_shares = check_per_stage("BudgetGate think_shares", think_shares)
        self.window = check_integer("BudgetGate window", window, minimum=_FEW)
        self.tolerance = check_number("BudgetGate tolerance", tolerance, maximum=1)
        self.reset()

    @property
    def needs_decode_head(self) -> bool:
        return self.gate.needs_decode_head

    @property
    def measure(self) -> Gate:
        return self.gate.measure

    def reset(self) -> None:
        """Forget all images."""
        self._histories: dict[int, _History] = {}

    def check(self, backbone) -> None:
        self.gate.check(backbone)
        check_count("BudgetGate think_shares", self.think_shares, backbone)

    def entropy(self, output) -> Tensor:
        return self.gate.entropy(output)

    def stop(self, output, entropy: Tensor) -> Tensor:
        stage = output.stage
        if stage not in self._histories:
            given = self.think_shares
            share = given[stage] if isinstance(given, list) else given
            start = self.gate.threshold
            self._histories[stage] = _History(share, start, self.window, self.tolerance)
        decide = self._histories[stage].stop
        return torch.tensor([decide(value) for value in entropy.tolist()], dtype=torch.bool)

    def extra_repr(self) -> str:
        return f"think_shares={self.think_shares}, window={self.window}, tolerance={self.tolerance}"


class _History:
    """Latest entropies of one stage, and counts of the images that reached and passed it."""

    def __init__(self, share: float, threshold: float, window: int, tolerance: float):
        self.share = share
        self.threshold = threshold
        self.tolerance = tolerance
        self.latest: deque[float] = deque(maxlen=window)
        self.reached = self.continued = 0

    def stop(self, entropy: float) -> bool:
        """Decide on one image and record it; an image without an entropy continues."""
        self.reached += 1
        if isnan(entropy):
            self.continued += 1
            return False
        self.latest.append(entropy)
        threshold = self.threshold
        if len(self.latest) >= _FEW:
            threshold = np.quantile(self.latest, 1 - self.share)
        slack = max(1.0, self.tolerance * self.reached)
        excess = self.continued - self.share * self.reached  # were this one to stop
        goes_on = entropy >= threshold
        if excess + 1 > slack or self.share == 0:
            goes_on = False
        elif excess < -slack or self.share == 1:
            goes_on = True
        self.continued += goes_on
        return not goes_on
