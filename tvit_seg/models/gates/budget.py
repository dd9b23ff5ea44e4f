"""A gate that keeps the share of images that think where it should be, however the data drifts."""

from collections import deque
from collections.abc import Sequence
from math import isnan
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from ...registry import GATES
from .base import Gate, build_gate

_FEW = 16  # entropies that make a quantile worth asking


@GATES.register_module()
class BudgetGate(Gate):
    """Lets a given share of the images think on, those with the highest entropies of late.

    The threshold of each stage is a running quantile of the latest entropies seen there, so it
    follows data that drifts. Where the share of images that thought would leave the target by more
    than the tolerance (by more than one image, while there are few), the count decides in place of
    the threshold, so the share holds at any time, not only in the long run. So does the average
    cost of images of one size, and of sliding windows; where sizes vary, only the share does.

    Images are taken in the order they come, so a batch gives what one by one gives; but what an
    image gets depends on those before it. Every process keeps its own account, and starts a new one
    for each validation or test.

    Args:
        gate: Measures entropies, a config or a gate with a threshold, which counts until enough
            entropies are known.
        think_shares: Of the images that reach a stage, the share in [0, 1] that thinks on; one for
            all stages or one for each but the last.
        window: How many of the latest entropies the quantile is taken of, >= 16.
        tolerance: By how much the share may be off, in [0, 1].

    Raises:
        ValueError: If an argument is out of range, or the gate has no threshold.
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
        if not hasattr(self.gate, "threshold"):
            raise ValueError(f"BudgetGate gate={gate!r} must be a gate with a threshold")
        many = isinstance(think_shares, Sequence)
        self.think_shares = [float(s) for s in think_shares] if many else float(think_shares)
        if not all(0 <= share <= 1 for share in np.atleast_1d(self.think_shares)):
            raise ValueError(f"BudgetGate think_shares={think_shares!r} must lie in [0, 1]")
        if not isinstance(window, Integral) or window < _FEW:
            raise ValueError(f"BudgetGate window={window!r} must be an integer >= {_FEW}")
        if not 0 <= tolerance <= 1:
            raise ValueError(f"BudgetGate tolerance={tolerance!r} must lie in [0, 1]")
        self.window = window
        self.tolerance = float(tolerance)
        self.reset()

    @property
    def needs_decode_head(self) -> bool:
        """As the gate that measures."""
        return self.gate.needs_decode_head

    @property
    def measure(self) -> Gate:
        return self.gate.measure

    def reset(self) -> None:
        """Forgets all images seen so far."""
        self._accounts: dict[int, _Account] = {}

    def check(self, backbone) -> None:
        self.gate.check(backbone)
        given = self.think_shares
        if isinstance(given, list) and len(given) != backbone.num_stages - 1:
            raise ValueError(
                f"BudgetGate think_shares={given} has {len(given)} entries; "
                f"{backbone.num_stages} thinking stages take {backbone.num_stages - 1}"
            )

    def entropy(self, output) -> Tensor:
        return self.gate.entropy(output)

    def stop(self, output, entropy: Tensor) -> Tensor:
        stage = output.stage
        if stage not in self._accounts:
            given = self.think_shares
            share = given[stage] if isinstance(given, list) else given
            start = self.gate.threshold
            self._accounts[stage] = _Account(share, start, self.window, self.tolerance)
        decide = self._accounts[stage].stop
        return torch.tensor([decide(value) for value in entropy.tolist()], dtype=torch.bool)

    def extra_repr(self) -> str:
        return f"think_shares={self.think_shares}, window={self.window}, tolerance={self.tolerance}"


class _Account:
    """One stage's latest entropies, and how many images came and thought on."""

    def __init__(self, share: float, threshold: float, window: int, tolerance: float):
        self.share = share
        self.threshold = threshold
        self.tolerance = tolerance
        self.latest: deque[float] = deque(maxlen=window)
        self.came = self.thought = 0

    def stop(self, entropy: float) -> bool:
        """Decides on one image and takes it down; one without a proper entropy thinks on."""
        self.came += 1
        if isnan(entropy):
            self.thought += 1
            return False
        self.latest.append(entropy)
        threshold = self.threshold
        if len(self.latest) >= _FEW:
            threshold = np.quantile(self.latest, 1 - self.share)
        slack = max(1.0, self.tolerance * self.came)
        excess = self.thought - self.share * self.came  # were this one to stop
        think = entropy >= threshold
        if excess + 1 > slack or self.share == 0:
            think = False
        elif excess < -slack or self.share == 1:
            think = True
        self.thought += think
        return not think
