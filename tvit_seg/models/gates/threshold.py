"""Gates that compare an entropy with a threshold."""

from torch import Tensor

from .base import Gate, check_threshold


class ThresholdGate(Gate):
    """Stop the images whose entropy is below a threshold.

    Since the rule is a comparison, an exported model can be gated without PyTorch: the entropy goes
    into the graphs, see :mod:`tvit_seg.deploy`.

    Args:
        threshold: In nats, >= 0; 0 always thinks to the end.
    """

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = check_threshold(threshold)

    def stop(self, output, entropy: Tensor) -> Tensor:
        return entropy < self.threshold

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}"
