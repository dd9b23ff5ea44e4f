"""Gate on decoded pixels, as in the authors' segmentation code."""

from torch import Tensor

from ...registry import GATES
from .functional import pixel_entropy
from .threshold import ThresholdGate


@GATES.register_module()
class PixelEntropyGate(ThresholdGate):
    """Stop the images whose mean pixel entropy is below a threshold.

    Every stage is decoded, so each further stage also costs a decode head. Works only in a
    :class:`~tvit_seg.ThinkingEncoderDecoder`.

    Args:
        threshold: In nats, of the softmax over all classes after upsampling to the padded input.
    """

    needs_decode_head = True

    def entropy(self, output) -> Tensor:
        return pixel_entropy(output.seg_logits)
