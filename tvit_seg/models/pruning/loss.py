"""Losses that train token pruning: the share of kept tokens, and distillation."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...utils.checks import check, check_number
from ..joint_batch import joint_share
from .teacher import Teacher

if TYPE_CHECKING:
    from ...thinking import StageOutput
    from ..backbones import ThinkingBackbone


class PruningLoss(nn.Module):
    """Ratio loss and distillation of DynamicViT (https://arxiv.org/abs/2106.02034).

    A model that trains a pruned backbone adds these to its own losses.

    Args:
        ratio_weight: Factor of the ratio loss, >= 0.
        logits_weight: Factor of the distillation of image-level logits, >= 0.
        tokens_weight: Factor of the distillation of the tokens that are kept to the end, >= 0.
        teacher: ``dict(type='Pretrained', checkpoint=PATH)``, with ``prefix`` and ``ema`` as
            elsewhere, for an unpruned backbone of the same size; None for the backbone's own
            weights at the start of training. ``ThinkingRunner`` saves these with the model, so
            that training can be resumed.
    """

    def __init__(
        self,
        ratio_weight: float = 2.0,
        logits_weight: float = 0.5,
        tokens_weight: float = 0.5,
        teacher: Mapping | None = None,
    ):
        super().__init__()
        self.ratio_weight = check_number("pruning_loss ratio_weight", ratio_weight)
        self.logits_weight = check_number("pruning_loss logits_weight", logits_weight)
        self.tokens_weight = check_number("pruning_loss tokens_weight", tokens_weight)
        self.teacher = Teacher(teacher)

    def forward(
        self,
        backbone: "ThinkingBackbone",
        outputs: Sequence["StageOutput"],
        images: Tensor,
        use_sigmoid: bool = False,
    ) -> dict[str, Tensor]:
        """Compute the losses of the pruned stage.

        Args:
            backbone: In training mode, with ``pruning``.
            outputs: Of ``backbone.forward_stages(images)``.
            images: (B, 3, H, W).
            use_sigmoid: For multi-label image-level logits.

        Returns:
            ``loss_ratio``, ``loss_logits`` where there is an image-level head, ``loss_tokens``;
            distillation with weight 0 is left out. Empty if nothing was pruned.
        """
        stage, keep_ratio = backbone.pruning.stage, backbone.pruning.keep_ratio
        output = outputs[stage]
        if output.keep_mask is None:
            return {}
        losses = dict(loss_ratio=self.ratio_weight * ratio_loss(output.keep_mask, keep_ratio))
        distils_logits = self.logits_weight and output.logits is not None
        if not distils_logits and not self.tokens_weight:
            return losses
        target = self.teacher(backbone, images)[stage]
        if distils_logits:
            divergence = binary_divergence if use_sigmoid else categorical_divergence
            loss = divergence(output.logits, target.logits).mean()
            losses["loss_logits"] = self.logits_weight * loss
        if self.tokens_weight:
            kept = output.keep_mask[:, -1].flatten(1).detach()  # (B, h w)
            spatial = slice(-kept.shape[1], None)
            loss = categorical_divergence(output.tokens[:, spatial], target.tokens[:, spatial])
            mean = (loss * kept).sum() / kept.sum().clamp(1)
            losses["loss_tokens"] = self.tokens_weight * mean * joint_share(kept.sum()).to(mean)
        return losses


def build_pruning_loss(options: Mapping | None, backbone: "ThinkingBackbone") -> PruningLoss | None:
    """Build the pruning loss of a model.

    Args:
        options: Arguments of :class:`PruningLoss`; None for its defaults.

    Returns:
        The loss, or None for a backbone without pruning.

    Raises:
        ConfigError: If there are options for a backbone without pruning, or the pruned stage has
            no weight in the loss.
    """
    if backbone.pruning is None:
        check(options is None, "pruning_loss", options, "None for a backbone without pruning")
        return None
    stage, weights = backbone.pruning.stage, backbone.loss_weights
    check(weights[stage] > 0, "loss_weights", weights, f"> 0 for stage {stage}, which is pruned")
    return PruningLoss(**(options or {}))


def ratio_loss(keep_mask: Tensor, keep_ratio: float) -> Tensor:
    """Mean squared error between the share of tokens kept in an image and its target.

    Args:
        keep_mask: (B, L, h, w) tokens that survive each pruning, 1 or 0.
        keep_ratio: r in (0, 1]; the target after the k-th pruning is r^k.

    Returns:
        Scalar, averaged over images and prunings.
    """
    steps = torch.arange(1, keep_mask.shape[1] + 1, device=keep_mask.device)
    return (keep_mask.mean(dim=(2, 3)) - keep_ratio**steps).square().mean()


def categorical_divergence(logits: Tensor, target: Tensor) -> Tensor:
    """KL divergence KL(target || prediction), (...) in nats, of softmax logits (..., K) each."""
    log_prob, log_target = logits.float().log_softmax(-1), target.float().log_softmax(-1)
    return F.kl_div(log_prob, log_target, reduction="none", log_target=True).sum(-1)


def binary_divergence(logits: Tensor, target: Tensor) -> Tensor:
    """KL divergence (...) in nats of sigmoid logits (..., K), averaged over classes."""
    pair, goal = (torch.stack((x, -x)).float() for x in (logits, target))
    log_prob, log_target = F.logsigmoid(pair), F.logsigmoid(goal)  # yes and no
    divergence = F.kl_div(log_prob, log_target, reduction="none", log_target=True)
    return divergence.sum(0).mean(-1)
