"""What shapes the entries of a checkpoint must have, and how some are brought to others."""

import re
from collections.abc import Mapping

import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from torch import Tensor

from .checkpoint_io import CheckpointError

_RANKS = [
    (r"(cls_token|pos_embed)", 3),
    (r"patch_embed\.proj\.weight", 4),
    (r"recycle\.\d+\.upsample\.weight", 4),
    (r"recycle\.\d+\.proj\.weight", 2, 4),  # of a ViT, of a Swin
    (r".*\.relative_position_bias_table", 2),
    (r".*(attn\.(qkv|proj)|mlp\.fc[12]|downsample\.reduction)\.weight", 2),
    (r"head\.weight", 2),
    (r"(.*\.)?norm\d?\.(weight|bias)", 1),
    (r"recycle\.\d+\.scale", 1),
    (r".*\.bias", 1),
]
"""Names in a backbone, and how many dimensions they may have."""


def check_entries(weights: Mapping[str, Tensor]) -> None:
    """Refuses what no model can have.

    Args:
        weights: Under our names, see :func:`~tvit_seg.convert_state_dict`. Of a segmentor's heads,
            which are many, only values are looked at.

    Raises:
        CheckpointError: If an entry is sparse, holds NaN or infinity, is empty, has another number
            of dimensions than its name says or, as a bias, another length than its weight, or is
            not of floating-point numbers.
    """
    for name, value in weights.items():
        if value.layout != torch.strided:
            raise CheckpointError(f"{name} is a tensor of layout {value.layout}, a dense is needed")
        known = value.is_floating_point() and value.device.type != "meta"
        if known and not torch.isfinite(value).all():
            raise CheckpointError(f"{name} holds NaN or infinity")
        if re.match(r"(decode|auxiliary)_head\.", name):
            continue
        ranks = _ranks(name.removeprefix("backbone."))
        if ranks and value.ndim not in ranks:
            needed = " or ".join(map(str, ranks))
            raise CheckpointError(
                f"{name} has shape {tuple(value.shape)}, {needed} dimensions are needed"
            )
        if not value.numel():
            raise CheckpointError(f"{name} is empty, its shape is {tuple(value.shape)}")
        if ranks and not value.is_floating_point():
            raise CheckpointError(f"{name} is of {value.dtype}, floating-point numbers are needed")
        rows = weights.get(re.sub(r"\.bias$", ".weight", name), value)
        if len(rows) != len(value):
            raise CheckpointError(f"{name} has {len(value)} entries, its weight {len(rows)} rows")


def _ranks(name: str) -> list[int]:
    return next((ranks for pattern, *ranks in _RANKS if re.fullmatch(pattern, name)), [])


def resize_position(value: Tensor, grid: list[int], interpolate_mode: str) -> Tensor:
    """A position embedding for another grid of patches.

    Args:
        value: (1, 1 + patches, d), class token first.
        grid: Rows and columns of patches.
        interpolate_mode: ``'bicubic'`` or ``'bilinear'``.

    Returns:
        (1, 1 + rows x columns, d); the value itself where it fits.

    Raises:
        CheckpointError: If it has another number of patches, and that is no square.
    """
    old = _grid(value.shape[1] - 1, grid)
    if old == grid:
        return value
    return resample_abs_pos_embed(value, grid, old, interpolation=interpolate_mode, antialias=False)


def _grid(num_patches: int, wanted: list[int]) -> list[int]:
    """The grid a position embedding was made for: the wanted one if it fits, else a square."""
    if num_patches == wanted[0] * wanted[1]:
        return wanted
    side = round(num_patches**0.5)
    if side * side != num_patches:
        raise CheckpointError(
            f"a position embedding of {num_patches} patches is not square; "
            f"only square ones can be resized to {wanted[0]} x {wanted[1]}"
        )
    return [side, side]


def resize_table(table: Tensor, window: tuple[int, int]) -> Tensor:
    """A table of relative positions for another window of attention.

    Args:
        table: (positions, heads).
        window: Rows and columns of the window.

    Returns:
        (other positions, heads).

    Raises:
        CheckpointError: If it was not made for a square window.
    """
    side = round(len(table) ** 0.5)
    if side * side != len(table):
        raise CheckpointError(
            f"a table of {len(table)} relative positions is not square; only square ones can be "
            f"resized to windows of {window[0]} x {window[1]}"
        )
    shape = ((2 * window[0] - 1) * (2 * window[1] - 1), table.shape[1])
    return resize_rel_pos_bias_table(table, new_window_size=window, new_bias_shape=shape)
