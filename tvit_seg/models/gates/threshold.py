"""Gates whose whole rule is a threshold."""

from torch import Tensor

from .base import Gate, check_threshold


class ThresholdGate(Gate):
    """Stops the images whose entropy, as the gate measures it, is below a threshold.

    Since the rule is a comparison, an exported model can be gated without PyTorch: the measure goes
    into the graphs, see :mod:`tvit_seg.deploy`.

    Args:
        threshold: In nats, >= 0; 0 always thinks to the end.

    Raises:
        ValueError: If ``threshold`` is negative or NaN.
    """

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = check_threshold(threshold)

    def stop(self, output, entropy: Tensor) -> Tensor:
        return entropy < self.threshold

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}"
