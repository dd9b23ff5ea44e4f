"""Gate on decoded pixels, as in the authors' segmentation code."""

from torch import Tensor

from ..registry import GATES
from .base import Gate, check_threshold
from .functional import pixel_entropy


@GATES.register_module()
class PixelEntropyGate(Gate):
    """Stops the images whose mean pixel entropy is below a threshold.

    Every stage is decoded to ask this gate, so thinking on costs a decode head per stage. It works
    in a :class:`~tvit_seg.ThinkingEncoderDecoder` only.

    Args:
        threshold: In nats, of the softmax over all classes after upsampling to the padded input.

    Raises:
        ValueError: If ``threshold`` is negative or NaN.
    """

    needs_decode_head = True

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = check_threshold(threshold)

    def entropy(self, output) -> Tensor:
        return pixel_entropy(output.seg_logits)

    def stop(self, output, entropy: Tensor) -> Tensor:
        return entropy < self.threshold

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}"
