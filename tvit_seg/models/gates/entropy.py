"""The gate of ThinkingViT: stop when the image-level prediction is certain."""

from torch import Tensor

from ...registry import GATES
from ...utils.checks import check, check_integer
from .functional import sigmoid_entropy, softmax_entropy
from .threshold import ThresholdGate


@GATES.register_module()
class EntropyGate(ThresholdGate):
    """Stop the images whose image-level prediction has an entropy below a threshold.

    Args:
        threshold: In nats. 0 always thinks to the end; more than the maximum (ln of the number of
            classes counted; ln 2 with ``use_sigmoid``) stops every image after stage 0.
        topk: Count the k >= 2 most probable classes only (k >= 1 with ``use_sigmoid``); 10 in the
            published ImageNet figures.
        use_sigmoid: The prediction is multi-label: mean binary entropy in place of softmax entropy.
    """

    def __init__(self, threshold: float, topk: int | None = None, use_sigmoid: bool = False):
        super().__init__(threshold)
        if topk is not None:  # a single renormalised probability has no entropy
            check_integer("gate topk", topk, minimum=1 if use_sigmoid else 2)
        self.topk = topk
        self.use_sigmoid = use_sigmoid

    def check(self, backbone) -> None:
        classes = backbone.num_classes
        reads = ">= 1 for EntropyGate, which reads the image-level prediction"
        check(classes >= 1, "num_classes", classes, reads)
        softmax = "True for a single class, which has no softmax entropy"
        check(classes > 1 or self.use_sigmoid, "EntropyGate use_sigmoid", False, softmax)
        fits = self.topk is None or self.topk <= classes
        check(fits, "gate topk", self.topk, f"at most the number of classes, {classes}")

    def entropy(self, output) -> Tensor:
        measure = sigmoid_entropy if self.use_sigmoid else softmax_entropy
        return measure(output.logits, self.topk)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, topk={self.topk}, use_sigmoid={self.use_sigmoid}"
