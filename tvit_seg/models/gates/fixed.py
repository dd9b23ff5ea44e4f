"""Gate that stops every image after the same stage."""

from torch import Tensor

from ...registry import GATES
from ...utils.checks import check_index
from .base import Gate


@GATES.register_module()
class FixedGate(Gate):
    """Stop every image after one given stage.

    Args:
        stage: Index of the last stage to run, counted from 0; negative counts from the end.
    """

    def __init__(self, stage: int):
        super().__init__()
        self.stage = stage

    def check(self, backbone) -> None:
        check_index("FixedGate stage", self.stage, backbone.num_stages)

    def stop(self, output, entropy: Tensor) -> bool:
        # no tensor: a decision that is independent of data can be traced and exported
        return output.stage >= self.stage % output.num_stages

    def extra_repr(self) -> str:
        return f"stage={self.stage}"


class ProbeGate(FixedGate):
    """Measure like another gate, at its cost, but stop every image after a given stage.

    Args:
        stage: As in :class:`FixedGate`.
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
