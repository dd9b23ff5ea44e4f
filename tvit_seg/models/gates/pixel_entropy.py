"""Gate on decoded pixels, as in the authors' segmentation code."""

from torch import Tensor

from ...registry import GATES
from ...utils.checks import check_choice
from .functional import pixel_entropy
from .threshold import ThresholdGate


@GATES.register_module()
class PixelEntropyGate(ThresholdGate):
    """Stop the images whose mean pixel entropy is below a threshold.

    Every stage is decoded, so each further stage also costs a decode head. Works only in a
    :class:`~tvit_seg.ThinkingEncoderDecoder`.

    Args:
        threshold: In nats, of the softmax over all classes.
        resolution: Resolution of the logits: ``'input'``, upsampled to the padded input, as the
            authors do, or ``'token'``, before that, in a fraction of the time. Upsampling blurs
            logits, so their entropies, and good thresholds, differ.
    """

    needs_decode_head = True

    def __init__(self, threshold: float, resolution: str = "input"):
        super().__init__(threshold)
        self.resolution = check_choice(
            "PixelEntropyGate resolution", resolution, ("input", "token")
        )

    def entropy(self, output) -> Tensor:
        coarse = self.resolution == "token"
        return pixel_entropy(output.coarse_logits if coarse else output.seg_logits)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, resolution={self.resolution!r}"
