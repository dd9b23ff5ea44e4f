"""Repairs of mmseg's pixel losses: class weights, ignored pixels, and the CPU."""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch.nn.functional as F
from mmseg.models.losses import (
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    HuasdorffDisstanceLoss,
    LovaszLoss,
    TverskyLoss,
)
from torch import Tensor, nn

from ...utils.checks import check

_IGNORE = 255  # default of mmseg's losses


def heads_of(model: nn.Module) -> list[nn.Module]:
    """List the decode and auxiliary heads of mmseg's segmentors, also of a cascade."""
    found = [getattr(model, name, None) for name in ("decode_head", "auxiliary_head")]
    lists = [heads if isinstance(heads, nn.ModuleList) else [heads] for heads in found]
    return [head for heads in lists for head in heads if head is not None]


def mend_losses(model: nn.Module) -> None:
    """Make mmseg's losses on a segmentor's heads work; see ``docs/losses.md``.

    Only these instances change; with losses that work nothing does.

    Raises:
        ConfigError: If a loss is not for the head, or has the wrong number of class weights.
    """
    for head in heads_of(model):
        losses = getattr(head, "loss_decode", None)
        for loss in losses if isinstance(losses, nn.ModuleList) else [losses]:
            if isinstance(loss, nn.Module):
                _mend(loss, head.out_channels)


def _mend(loss: nn.Module, channels: int) -> None:
    _check(loss, channels)
    if isinstance(loss, CrossEntropyLoss) and loss.class_weight is not None:
        if loss.use_sigmoid:  # broadcast over the classes (B, K, H, W), not over columns
            shape = (1,) if channels == 1 else (-1, 1, 1)
            loss.class_weight = np.reshape(loss.class_weight, shape).tolist()
        elif loss.reduction == "mean":
            loss.register_forward_pre_hook(_average_by_weight, with_kwargs=True)
    elif isinstance(loss, FocalLoss):
        loss.register_forward_pre_hook(_one_hot_on_cpu, with_kwargs=True)
    elif isinstance(loss, LovaszLoss):
        loss.register_forward_hook(_zero_without_labels)
    elif isinstance(loss, DiceLoss):
        mask = partial(_mask_ignored, activate=loss.activate)
        loss.activate = False
        loss.register_forward_pre_hook(mask, with_kwargs=True)


def _check(loss: nn.Module, channels: int) -> None:
    name = f"loss_decode {type(loss).__name__}"
    parameters = inspect.signature(loss.forward).parameters.values()
    fits = any(p.name == "ignore_index" or p.kind is p.VAR_KEYWORD for p in parameters)
    check(fits, "loss_decode", type(loss).__name__, "a loss whose forward takes ignore_index")
    weights = getattr(loss, "class_weight", None)
    fits = weights is None or len(weights) == channels
    check(fits, f"{name} class_weight", weights, f"None or {channels} numbers, one per channel")
    if isinstance(loss, HuasdorffDisstanceLoss):
        check(weights is None, f"{name} class_weight", weights, "None: mmseg rejects any")
        allowed = "2: mmseg compares probabilities with class indices, and misses the best"
        check(channels <= 2, f"channels for {name}", channels, allowed)
    softmax = isinstance(loss, TverskyLoss | HuasdorffDisstanceLoss)
    softmax |= isinstance(loss, LovaszLoss) and loss.cls_criterion.__name__ == "lovasz_softmax"
    allowed = "a loss with a sigmoid for a head of one channel, whose softmax is always 1"
    check(channels > 1 or not softmax, "loss_decode", type(loss).__name__, allowed)


def _average_by_weight(
    module: CrossEntropyLoss, args: tuple, kwargs: Mapping[str, Any]
) -> tuple[tuple, dict[str, Any]]:
    """Divide by the weights of the labelled pixels, which mmseg looks up for ignored ones, too."""
    pred, labels = args
    labelled = labels[labels != kwargs.get("ignore_index", _IGNORE)]
    weights = pred.new_tensor(module.class_weight)
    return args, {**kwargs, "avg_factor": weights[labelled].sum()}


def _one_hot_on_cpu(
    module: FocalLoss, args: tuple, kwargs: Mapping[str, Any]
) -> tuple[tuple, dict[str, Any]] | None:
    """Expand labels, where mmseg picks a wrong column; a weight excludes ignored pixels."""
    pred, labels = args
    if pred.is_cuda or pred.shape == labels.shape:
        return None
    valid = labels != kwargs.get("ignore_index", _IGNORE)
    weight = kwargs.get("weight")
    weight = valid.to(pred) if weight is None else weight * valid
    # index -1 belongs to no class, and mmseg finds nothing more to ignore
    options = {**kwargs, "weight": weight.flatten(), "ignore_index": -1}
    return (pred, _one_hot(labels, valid, pred).to(pred)), options


def _zero_without_labels(module: LovaszLoss, args: tuple, loss: Tensor) -> Tensor:
    """Replace an empty loss, whose mean is NaN, where no pixel has a label."""
    return loss if loss.numel() else args[0].sum() * 0


def _mask_ignored(
    module: DiceLoss, args: tuple, kwargs: Mapping[str, Any], activate: bool
) -> tuple[tuple, Mapping[str, Any]]:
    """Compute probabilities, 0 at ignored pixels, which mmseg counts as predicted wrongly."""
    pred, labels = args
    if activate and module.use_sigmoid:
        pred = pred.sigmoid()
    elif activate and pred.shape[1] > 1:
        pred = pred.softmax(dim=1)
    if pred.shape == labels.shape:
        return (pred, labels), kwargs
    valid = labels != kwargs.get("ignore_index", _IGNORE)
    return (pred * valid.unsqueeze(1), _one_hot(labels, valid, pred)), kwargs


def _one_hot(labels: Tensor, valid: Tensor, pred: Tensor) -> Tensor:
    """Classes (B, ...) as 0 and 1 in the shape of a prediction (B, K, ...).

    A single channel is class 1, the foreground.
    """
    if pred.shape[1] == 1:
        return ((labels == 1) & valid).long().unsqueeze(1)
    expanded = F.one_hot(labels.long().where(valid, pred.shape[1]), pred.shape[1] + 1)
    return expanded.movedim(-1, 1)[:, :-1]
