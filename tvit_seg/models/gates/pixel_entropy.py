"""Gate on decoded pixels, as in the authors' segmentation code."""

from torch import Tensor

from ...registry import GATES
from .functional import pixel_entropy
from .threshold import ThresholdGate


@GATES.register_module()
class PixelEntropyGate(ThresholdGate):
    """Stops the images whose mean pixel entropy is below a threshold.

    Every stage is decoded to ask this gate, so thinking on costs a decode head per stage. It works
    in a :class:`~tvit_seg.ThinkingEncoderDecoder` only.

    Args:
        threshold: In nats, of the softmax over all classes after upsampling to the padded input.

    Raises:
        ValueError: If ``threshold`` is negative or NaN.
    """

    needs_decode_head = True

    def entropy(self, output) -> Tensor:
        return pixel_entropy(output.seg_logits)
