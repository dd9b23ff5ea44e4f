"""Fitting weights to a model's shapes: filling slices, cropping, resizing positions."""

import re
from typing import TYPE_CHECKING

from timm.layers import resample_abs_pos_embed, resample_patch_embed, resize_rel_pos_bias_table
from timm.models import adapt_input_conv
from torch import Tensor, nn

from ..errors import CheckpointError

if TYPE_CHECKING:
    from .convert import Report


def fit(weights: dict[str, Tensor], model: nn.Module, report: "Report") -> dict[str, Tensor]:
    """Bring weights into the shapes of a model.

    Smaller weights fill the leading slices of its parameters, larger ones are cropped. Rows and
    columns of a layer with ``weight_groups`` fall into as many equal groups, each cut or filled on
    its own.

    Args:
        weights: Under the model's names.
        model: Receives the weights later, by ``load_state_dict``.
        report: Receives the names that were cropped, resized or left out.

    Raises:
        CheckpointError: A position embedding or table cannot be resized.
    """
    own = model.state_dict()
    report.missing = [name for name in own if name not in weights]
    backbone = getattr(model, "backbone", model)
    fitted = {}
    for name, value in weights.items():
        if name not in own:
            report.dropped[name] = "the model has no such parameter"
            continue
        target, layer = own[name], model.get_submodule(name.rpartition(".")[0])
        value = value.to(target.dtype)
        if value.ndim == target.ndim:
            resized = _resize(name, value, target, layer, backbone)
            if resized is not value:
                report.resized.append(name)
            value = resized
        groups = getattr(layer, "weight_groups", (1, 1))
        if why := _mismatch(name, value, target, groups):
            report.dropped[name] = why
            report.missing.append(name)
        else:
            fitted[name] = _slice_into(name, value, target, groups, report)
    leading = getattr(backbone, "slicing", None) == "leading"
    if leading and any(name.endswith("patch_embed.norm.weight") for name in report.cropped):
        raise CheckpointError(
            "with slicing='leading' patches are normalised at the full width of the first level: "
            "it cannot be cropped, set embed_dims and num_heads of the weights"
        )
    return fitted


def _resize(
    name: str, value: Tensor, target: Tensor, layer: nn.Module, backbone: nn.Module
) -> Tensor:
    """Positions, patch embeddings and tables of relative positions in the model's sizes."""
    if re.search(r"(^|backbone\.)pos_embed$", name):
        new = list(backbone.patch_embed.grid_size)
        others = target.shape[1] - new[0] * new[1]
        patches = value.shape[1] - others
        if patches == new[0] * new[1]:
            return value
        old = [square(patches, "a position embedding of {} patches")] * 2
        mode = backbone.interpolate_mode
        return resample_abs_pos_embed(value, new, old, others, interpolation=mode, antialias=False)
    if name.endswith("patch_embed.proj.weight") and value.shape[1:] != target.shape[1:]:
        return _resize_patches(value, target)
    if name.endswith(".relative_position_bias_table") and len(value) != len(target):
        square(len(value), "a table of {} relative positions")
        shape = (len(target), value.shape[1])
        return resize_rel_pos_bias_table(value, layer.window_size, shape)
    return value


def square(count: int, what: str) -> int:
    """Compute the side of a square grid of ``count`` cells; ``what`` describes it in the error."""
    side = round(count**0.5)
    if side * side != count:
        raise CheckpointError(f"{what.format(count)} is not square")
    return side


def _resize_patches(weight: Tensor, target: Tensor) -> Tensor:
    """A patch embedding (D, 3, P, P) for other image channels and another patch size."""
    if weight.shape[2:] != target.shape[2:]:
        weight = resample_patch_embed(weight, list(target.shape[2:]))
    if weight.shape[1] != target.shape[1]:
        if weight.shape[1] != 3:
            raise CheckpointError(
                f"a patch embedding of {weight.shape[1]} image channels cannot be made one of "
                f"{target.shape[1]}; only that of 3 channels can"
            )
        weight = adapt_input_conv(target.shape[1], weight)
    return weight


def _mismatch(name: str, value: Tensor, target: Tensor, groups: tuple[int, int]) -> str | None:
    """Reason that a tensor cannot be cropped or padded to the model's shape; None if it can."""
    shapes = f"shape {tuple(value.shape)}, the model has {tuple(target.shape)}"
    if value.ndim != target.ndim:
        return shapes
    image_head = re.search(r"(^|backbone\.)head\.(weight|bias)$", name)
    if image_head and value.shape[0] != target.shape[0]:
        return f"{value.shape[0]} classes, the model has {target.shape[0]}"
    nested = not re.search(r"^(decode_head|auxiliary_head)\.|^(backbone\.)?pruning\.", name)
    for length, count in zip(value.shape, groups, strict=False):
        if length % count:
            return f"a length of {length} does not fall into {count} equal groups"
    return None if nested or value.shape == target.shape else shapes


def _slice_into(
    name: str, value: Tensor, target: Tensor, groups: tuple[int, int], report: "Report"
) -> Tensor:
    """The overlap of both shapes from the checkpoint, the rest as the model has it."""
    if value.shape == target.shape:
        return value
    if any(new > old for new, old in zip(value.shape, target.shape, strict=True)):
        report.cropped.append(name)
    if any(new < old for new, old in zip(value.shape, target.shape, strict=True)):
        report.partial.append(name)
    result = target.clone()
    source, goal = value, result
    for dim in reversed(range(min(value.ndim, 2))):
        source, goal = (x.unflatten(dim, (groups[dim], -1)) for x in (source, goal))
    overlap = tuple(slice(min(a, b)) for a, b in zip(source.shape, goal.shape, strict=True))
    goal[overlap] = source[overlap]
    return result
