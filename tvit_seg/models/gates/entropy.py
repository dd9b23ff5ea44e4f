"""The gate of ThinkingViT: stop when the image-level prediction is certain."""

from numbers import Integral

from torch import Tensor

from ...registry import GATES
from .functional import sigmoid_entropy, softmax_entropy
from .threshold import ThresholdGate


@GATES.register_module()
class EntropyGate(ThresholdGate):
    """Stops the images whose image-level prediction has an entropy below a threshold.

    Args:
        threshold: In nats. 0 always thinks to the end; more than the maximum (ln of the number of
            classes counted; ln 2 with ``use_sigmoid``) stops every image at the first stage.
        topk: Count the k most probable classes only; 10 in the published ImageNet figures.
        use_sigmoid: The prediction is multi-label: mean binary entropy in place of softmax entropy.

    Raises:
        ValueError: If ``threshold`` is negative or NaN, or ``topk`` is no integer >= 1 (>= 2 for
            softmax, where a single renormalised probability has no entropy).
    """

    def __init__(self, threshold: float, topk: int | None = None, use_sigmoid: bool = False):
        super().__init__(threshold)
        least = 1 if use_sigmoid else 2
        if topk is not None and (not isinstance(topk, Integral) or topk < least):
            raise ValueError(f"gate topk={topk!r} must be None or an integer >= {least}")
        self.topk = topk
        self.use_sigmoid = use_sigmoid

    def check(self, backbone) -> None:
        if not backbone.num_classes:
            raise ValueError(
                "EntropyGate reads the image-level prediction, but the backbone has num_classes=0; "
                "set num_classes, or use PixelEntropyGate, FixedGate or RandomGate"
            )
        if backbone.num_classes == 1 and not self.use_sigmoid:
            raise ValueError(
                "one class has no softmax entropy: set use_sigmoid=True in EntropyGate"
            )
        if self.topk is not None and self.topk > backbone.num_classes:
            raise ValueError(
                f"gate topk={self.topk} is above the number of classes, {backbone.num_classes}"
            )

    def entropy(self, output) -> Tensor:
        measure = sigmoid_entropy if self.use_sigmoid else softmax_entropy
        return measure(output.logits, self.topk)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, topk={self.topk}, use_sigmoid={self.use_sigmoid}"
