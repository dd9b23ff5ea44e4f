"""Joint loss of ThinkingViT (https://arxiv.org/abs/2507.10800) around any criterion."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..backbones.arguments import check_loss_weights


class JointLoss(nn.Module):
    """Weighted sum of a criterion over the thinking stages, sum_i a_i L(f_i, y).

    For ``timm.create_model(..., joint=True)``, which returns the logits of every stage in training.
    A single prediction, as in evaluation, is passed to the criterion.

    Args:
        criterion: Takes logits (B, K) and a target.
        weights: One for each stage, >= 0; None for equal weights with sum 1.
    """

    def __init__(
        self, criterion: Callable[[Tensor, Tensor], Tensor], weights: Sequence[float] | None = None
    ):
        super().__init__()
        self.criterion = criterion
        self.weights = weights

    def forward(self, output: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """Loss of logits (B, K), or of one such tensor for each stage."""
        if isinstance(output, Tensor):
            return self.criterion(output, target)
        weights = check_loss_weights(self.weights, len(output))
        pairs = zip(weights, output, strict=True)
        losses = [weight * self.criterion(logits, target) for weight, logits in pairs]
        return sum(losses[1:], losses[0])
