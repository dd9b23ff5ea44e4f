"""Losses that train token pruning: how much is kept, and what the unpruned model would say."""

from collections.abc import Mapping, Sequence
from math import inf
from numbers import Real
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..joint_batch import joint_share
from .teacher import Teacher

if TYPE_CHECKING:
    from ...thinking import StageOutput
    from ..backbones import ThinkingBackbone


class PruningLoss(nn.Module):
    """Ratio loss and distillation of DynamicViT (https://arxiv.org/abs/2106.02034).

    Belongs to a model that trains a pruned backbone, and is added to that model's own losses.

    Args:
        ratio_weight: Factor of the ratio loss, >= 0.
        logits_weight: Factor of the distillation of image-level logits, >= 0.
        tokens_weight: Factor of the distillation of the tokens that are kept to the end, >= 0.
        teacher: ``dict(type='Pretrained', checkpoint=PATH)``, with ``prefix`` and ``ema`` as
            elsewhere, for an unpruned backbone of the same size; None for the backbone's own
            weights as they are when training starts. ``ThinkingRunner`` saves those beside the
            model, so that training can be resumed.

    Raises:
        ValueError: If a weight is negative or ``teacher`` is something else.
    """

    def __init__(
        self,
        ratio_weight: float = 2.0,
        logits_weight: float = 0.5,
        tokens_weight: float = 0.5,
        teacher: Mapping | None = None,
    ):
        super().__init__()
        weights = dict(
            ratio_weight=ratio_weight, logits_weight=logits_weight, tokens_weight=tokens_weight
        )
        for name, value in weights.items():
            if not isinstance(value, Real) or not 0 <= value < inf:
                raise ValueError(f"pruning_loss {name}={value!r} must be a finite number >= 0")
        self.ratio_weight = ratio_weight
        self.logits_weight = logits_weight
        self.tokens_weight = tokens_weight
        self.teacher = Teacher(teacher)

    def forward(
        self,
        backbone: "ThinkingBackbone",
        outputs: Sequence["StageOutput"],
        images: Tensor,
        use_sigmoid: bool = False,
    ) -> dict[str, Tensor]:
        """Computes the losses of the pruned stage.

        Args:
            backbone: In training mode, with ``pruning``.
            outputs: What ``backbone.forward_stages(images)`` has returned.
            images: (B, 3, H, W).
            use_sigmoid: Whether the image-level logits are multi-label.

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
            loss = categorical_divergence(output.tokens[:, 1:], target.tokens[:, 1:])
            mean = (loss * kept).sum() / kept.sum().clamp(1)
            losses["loss_tokens"] = self.tokens_weight * mean * joint_share(kept.sum()).to(mean)
        return losses


def build_pruning_loss(options: Mapping | None, backbone: "ThinkingBackbone") -> PruningLoss | None:
    """The pruning loss of a model.

    Args:
        options: Arguments of :class:`PruningLoss`; None for its defaults.
        backbone: The model's backbone.

    Returns:
        The loss, or None for a backbone that prunes nothing.

    Raises:
        ValueError: If there are options for a backbone that prunes nothing, or the stage that is
            pruned has no weight in the loss.
    """
    if backbone.pruning is not None:
        if not backbone.loss_weights[backbone.pruning.stage]:
            raise ValueError(
                f"loss_weights={backbone.loss_weights} do not train stage "
                f"{backbone.pruning.stage}, which is pruned"
            )
        return PruningLoss(**(options or {}))
    if options is not None:
        raise ValueError(
            f"pruning_loss={dict(options)!r} needs a backbone with token pruning, e.g. "
            "pruning=dict(type='DynamicPruning')"
        )
    return None


def ratio_loss(kept: Tensor, keep_ratio: float) -> Tensor:
    """Mean squared error between the share of tokens kept in an image and the wanted one.

    Args:
        kept: (B, L, h, w) which tokens survive each pruning, 1 or 0.
        keep_ratio: r in (0, 1]; r^k is wanted after the k-th pruning.

    Returns:
        Scalar, averaged over images and prunings.
    """
    steps = torch.arange(1, kept.shape[1] + 1, device=kept.device)
    return (kept.mean(dim=(2, 3)) - keep_ratio**steps).square().mean()


def categorical_divergence(logits: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(target || prediction) of softmax distributions.

    Args:
        logits: (..., K).
        target: (..., K) logits.

    Returns:
        (...) in nats.
    """
    log_prob, log_target = logits.float().log_softmax(-1), target.float().log_softmax(-1)
    return F.kl_div(log_prob, log_target, reduction="none", log_target=True).sum(-1)


def binary_divergence(logits: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(target || prediction) of sigmoids, averaged over classes.

    Args:
        logits: (..., K).
        target: (..., K) logits.

    Returns:
        (...) in nats.
    """
    pair, goal = (torch.stack((x, -x)).float() for x in (logits, target))
    log_prob, log_target = F.logsigmoid(pair), F.logsigmoid(goal)  # yes and no
    divergence = F.kl_div(log_prob, log_target, reduction="none", log_target=True)
    return divergence.sum(0).mean(-1)
