"""Fitting weights to a model's shapes: filling slices, cropping, resizing positions."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from timm.layers import (
    resample_abs_pos_embed,
    resample_patch_embed,
    resize_rel_pos_bias_table,
    to_2tuple,
)
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import CheckpointError
from .entries import settle

if TYPE_CHECKING:
    from .convert import Report


_PATCHES = "patch_embed.proj.weight"


def fit(weights: Mapping[str, Tensor], model: nn.Module, report: "Report") -> dict[str, Tensor]:
    """Bring weights into the shapes of a model.

    Smaller weights fill the leading slices of its parameters, larger ones are cropped. Rows and
    columns of a layer with ``weight_groups`` fall into as many equal groups, each cut or filled on
    its own.

    Args:
        weights: Under the model's names.
        model: Receives the weights later, by ``load_state_dict``.
        report: Receives the names that were cropped, resized or left out.

    Raises:
        CheckpointError: An entry changes what the network computes and the model has no place for
            it or another shape, see :func:`.entries.settle`; or a position embedding or table
            cannot be resized.
    """
    own = model.state_dict()
    backbone = getattr(model, "backbone", model)
    prefix = "" if backbone is model else "backbone."
    inner = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    inner = _move_positions(settle(inner, backbone, report), backbone, report)
    check_recorded(backbone, report.recorded)
    if not recorded_head_dim(report.recorded):
        report.head_dim = model_head_dim(backbone)
    settled = {f"{prefix}{name}": value for name, value in inner.items()}
    settled |= {name: value for name, value in weights.items() if not name.startswith(prefix)}
    report.missing = [name for name in own if name not in settled]
    widths = _width(inner), _width(backbone.state_dict())
    fitted = {}
    for name, value in settled.items():
        if name not in own:
            report.dropped[name] = "the model has no such parameter"
            continue
        target, layer = own[name], model.get_submodule(name.rpartition(".")[0])
        value = value.to(target.dtype)
        if value.ndim == target.ndim:
            resized = _resize(name, value, target, layer)
            if resized is not value:
                report.resized.append(name)
            value = resized
        groups = getattr(layer, "weight_groups", (1, 1))
        if why := _mismatch(name, value, target, groups, widths):
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


def check_recorded(backbone: nn.Module, recorded: Mapping[str, Any]) -> None:
    """Reject a file that records what the backbone does not compute.

    Raises:
        CheckpointError: Heads of another width, another activation of the perceptrons, or a rotary
            position embedding, of which weights alone need not tell.
    """
    theirs, ours = recorded_head_dim(recorded), model_head_dim(backbone)
    if theirs and ours and theirs != ours:
        raise CheckpointError(
            f"attention heads of {theirs} channels are recorded, the model's have {ours}: "
            f"set num_heads=embed_dims / {theirs}"
        )
    activation = recorded.get("activation", "").replace("_", "")
    acts = {type(m).__name__.lower() for n, m in backbone.named_modules() if n.endswith("mlp.act")}
    if activation and acts and activation not in acts:
        raise CheckpointError(
            f"perceptrons with {recorded['activation']} are recorded, the model's have "
            f"{', '.join(acts)}: set act_cfg"
        )

    architecture = recorded.get("architecture", "")
    if "_rope" in architecture and getattr(backbone, "rope", None) is None:
        raise CheckpointError(
            f"weights of another network: {architecture} has a rotary position embedding, which "
            "the model lacks"
        )


def recorded_head_dim(recorded: Mapping[str, Any]) -> int | None:
    """Return the width of a ViT's attention heads that a file records; None if it does not."""
    heads, width = recorded.get("num_heads"), recorded.get("embed_dims")
    return width // heads if isinstance(heads, int) and isinstance(width, int) else None


def model_head_dim(backbone: nn.Module) -> int | None:
    """Return the width of a thinking ViT's attention heads; None for other backbones."""
    heads: Any = getattr(backbone, "thinking_stages", [None])[0]
    widths: Any = getattr(backbone, "stage_dims", None)
    return widths[0] // heads if isinstance(heads, int) else None


def position_grid(
    weights: Mapping[str, Tensor],
    recorded: Mapping[str, Any],
    expected: Sequence[int] = (0, 0),
) -> tuple[int, tuple[int, int]]:
    """Read the layout of a ViT's position embedding.

    Args:
        weights: Of one network; the embedding is of shape (1, P + h w, D).
        recorded: ``img_size`` where known.
        expected: Grid that is preferred to a square.

    Returns:
        P, the number of positions before those of the patches, for no token, the class token, or
        registers as well; and (h, w).

    Raises:
        CheckpointError: The grid is neither recorded nor expected nor a square.
    """
    if weights["pos_embed"].ndim != 3:
        shape = tuple(weights["pos_embed"].shape)
        raise CheckpointError(f"pos_embed must be of shape (1, tokens, channels), got {shape}")
    count = weights["pos_embed"].shape[1]
    registers = weights["reg_token"].shape[1] if "reg_token" in weights else 0
    known = expected[0], expected[1]
    if recorded.get("img_size") and _PATCHES in weights:
        patch = weights[_PATCHES].shape[2:]
        height, width = to_2tuple(recorded["img_size"])
        known = height // patch[0], width // patch[1]
    for prefix in (1 + registers, 0, 1):
        if count - prefix == known[0] * known[1]:
            return prefix, known
    found = {}
    for prefix in {1 + registers, 0, 1}:
        side = round(max(count - prefix, 0) ** 0.5)
        if side * side == count - prefix > 0:
            found[prefix] = side, side
    if len(found) == 1:
        return found.popitem()
    readings = " or ".join(f"{p} other tokens and {h} x {w} patches" for p, (h, w) in found.items())
    raise CheckpointError(
        f"a position embedding of {count - 1 - registers} patches is not square: "
        "import_weights.py --img-size H W records the size in pixels"
        if not found
        else f"a position embedding of {count} tokens may be for {readings}"
    )


def _move_positions(
    weights: Mapping[str, Tensor], backbone: nn.Module, report: "Report"
) -> dict[str, Tensor]:
    """Resize the position embedding and give it the backbone's layout of other tokens, exactly.

    A token without position gets a zero; positions that the backbone does not have are added to
    their tokens.
    """
    own, moved = backbone.state_dict(), dict(weights)
    if "pos_embed" not in weights or "pos_embed" not in own:
        return moved
    new = backbone.patch_embed.grid_size
    prefix, old = position_grid(weights, report.recorded, new)
    wanted = own["pos_embed"].shape[1] - new[0] * new[1]
    positions = weights["pos_embed"].to(own["pos_embed"].dtype)
    others, patches = positions.tensor_split([prefix], dim=1)
    if prefix < wanted:
        others = F.pad(others, (0, 0, 0, wanted - prefix))
        report.absent.append(f"positions of {wanted - prefix} tokens before the patches")
    start = 0
    for name in ("cls_token", "reg_token"):
        length = moved[name].shape[1] if name in moved else 0
        if wanted <= start < prefix and length:
            moved[name] = moved[name] + others[:, start : start + length]
        start += length
    if tuple(old) != tuple(new):
        patches = resample_abs_pos_embed(
            patches,
            list(new),
            list(old),
            num_prefix_tokens=0,
            interpolation=backbone.interpolate_mode,
            antialias=False,
        )
        report.resized.append("pos_embed")
    moved["pos_embed"] = torch.cat((others[:, :wanted], patches), dim=1)
    return moved


def _width(weights: Mapping[str, Tensor]) -> int:
    return len(weights[_PATCHES])


def _resize(name: str, value: Tensor, target: Tensor, layer: nn.Module) -> Tensor:
    """Patch embeddings and tables of relative positions in the model's sizes."""
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


def _mismatch(
    name: str, value: Tensor, target: Tensor, groups: tuple[int, int], widths: tuple[int, int]
) -> str | None:
    """Reason to leave a tensor out, whose layer then starts from random values; None if it fits.

    Args:
        name: Of the tensor.
        value: Tensor of the checkpoint.
        target: Tensor of the model.
        groups: Groups of the layer's rows and columns.
        widths: Channels of the checkpoint's network and of the model's.

    Raises:
        CheckpointError: The shape is that of another network.
    """
    shapes = f"shape {tuple(value.shape)}, the model has {tuple(target.shape)}"
    own = re.search(r"^(decode_head|auxiliary_head|neck)\.|^(backbone\.)?pruning\.", name)
    if own or value.shape == target.shape:
        return None if value.shape == target.shape else shapes
    if value.ndim == target.ndim:
        image_head = re.search(r"(^|backbone\.)head\.(weight|bias)$", name)
        if image_head and value.shape[0] != target.shape[0]:
            return f"{value.shape[0]} classes, the model has {target.shape[0]}"
        if re.search(r"(^|backbone\.)recycle\.", name):
            return None
        if all(
            length % count == 0 and _scaled(name, length, wanted, widths)
            for length, wanted, count in zip(
                value.shape, target.shape, (*groups, *[1] * value.ndim), strict=False
            )
        ):
            return None
    raise CheckpointError(
        f"weights of another network: {name} has {shapes}: with networks of {widths[0]} and "
        f"{widths[1]} channels neither a slice nor a part of it (another mlp_ratio or number of "
        "registers, a gated perceptron, other heads?)"
    )


def _scaled(name: str, length: int, wanted: int, widths: tuple[int, int]) -> bool:
    """Return whether a length is the model's, or has the same share of the network's width."""
    if length == wanted or widths[0] == widths[1] or re.search(r"\.[qk]_norm\.", name):
        return length == wanted
    rounding = 2 * max(widths) if ".mlp." in name else 1  # of hidden channels, in two halves
    return abs(length * widths[1] - wanted * widths[0]) < rounding


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
