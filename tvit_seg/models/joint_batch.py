"""Average over the joint batch of several processes.

``DistributedDataParallel`` averages gradients over processes. This is the gradient of the joint
batch if the loss is a mean over images, since each process has the same number of images, but not
if it is a mean over labelled pixels or kept tokens.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import BaseModel
from mmseg.models.losses import CrossEntropyLoss
from torch import Tensor, nn


def joint_share(count: Tensor) -> Tensor:
    """Factor for a process's mean, so that the average over processes is the mean over all items.

    Every process must call this function, since it averages over processes.

    Args:
        count: Scalar, number (or weight) of the items in this process's mean.

    Returns:
        Scalar to multiply that mean by: the count over its average, 1 for a single process.
    """
    if get_world_size() == 1:
        return torch.ones_like(count)
    count = count.detach().double()
    average = count.clone()
    all_reduce(average, "mean")
    return count / average.clamp(min=torch.finfo(torch.double).tiny)


def average_jointly(model: nn.Module) -> None:
    """Make every ``CrossEntropyLoss`` of a model average over the labelled pixels of all processes.

    mmseg's averages over those of its own process. Nothing changes for a single process.
    """
    for module in model.modules():
        if isinstance(module, CrossEntropyLoss):  # a hook on this instance; mmseg's class stays
            module.register_forward_hook(_scale_to_joint_mean, with_kwargs=True)


def _scale_to_joint_mean(
    module: CrossEntropyLoss, args: tuple, kwargs: Mapping[str, Any], loss: Tensor
) -> Tensor:
    if not module.training or module.reduction != "mean" or get_world_size() == 1:
        return loss
    labels = args[1] if len(args) > 1 else kwargs["label"]
    valid = labels != kwargs.get("ignore_index", -100)
    if module.class_weight is not None and not module.use_sigmoid:
        weights = torch.tensor(module.class_weight, dtype=torch.double, device=labels.device)
        count = weights[labels[valid]].sum()
    elif module.avg_non_ignore:
        count = valid.sum()
    else:
        return loss  # a mean over all pixels, the same number on each process
    return loss * joint_share(count).to(loss.dtype)


def average_logs(log_vars: dict[str, Tensor]) -> dict[str, Tensor]:
    """Average scalars to log, the same names on every process, over all processes."""
    if get_world_size() == 1:
        return log_vars
    values = torch.stack([value.detach().float() for value in log_vars.values()])
    all_reduce(values, "mean")
    return type(log_vars)(zip(log_vars, values.unbind(), strict=True))


class JointLogs(BaseModel):
    """Mixin before a model's base class: logs the averages over all processes."""

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the losses of one step to minimise, and their averages to log."""
        loss, log_vars = super().parse_losses(losses)
        return loss, average_logs(log_vars)
