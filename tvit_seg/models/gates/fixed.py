"""A gate that stops every image after the same stage."""

from torch import Tensor

from ...registry import GATES
from .base import Gate


@GATES.register_module()
class FixedGate(Gate):
    """Stops every image after one given stage.

    Args:
        stage: Index of the last stage to run, counted from 0; negative counts from the end.
    """

    def __init__(self, stage: int):
        super().__init__()
        self.stage = stage

    def check(self, backbone) -> None:
        stages = backbone.num_stages
        if not isinstance(self.stage, int) or not -stages <= self.stage < stages:
            raise ValueError(
                f"FixedGate stage={self.stage!r} must be an integer in [{-stages}, {stages - 1}]"
            )

    def stop(self, output, entropy: Tensor) -> bool:
        # no tensor: a decision that does not depend on data can be traced and exported
        return output.stage >= self.stage % output.num_stages

    def extra_repr(self) -> str:
        return f"stage={self.stage}"


class ProbeGate(FixedGate):
    """Measures what another gate measures, at its cost, but stops every image at a given stage.

    Args:
        gate: The gate that measures.
        stage: Index of the last stage to run, counted from 0; negative counts from the end.
    """

    def __init__(self, gate: Gate, stage: int):
        super().__init__(stage)
        self.gate = gate

    @property
    def needs_decode_head(self) -> bool:
        return self.gate.needs_decode_head

    @property
    def measure(self) -> Gate:
        return self.gate.measure

    def entropy(self, output) -> Tensor:
        return self.gate.entropy(output)
