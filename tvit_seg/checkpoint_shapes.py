"""What the entries of a checkpoint must look like before anybody computes with them."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .checkpoint_io import CheckpointError

_RANKS = [
    (r"(cls_token|pos_embed)", 3),
    (r"patch_embed\.proj\.weight", 4),
    (r"recycle\.\d+\.upsample\.weight", 4),
    (r".*\.relative_position_bias_table", 2),
    (r".*(attn\.(qkv|proj)|mlp\.fc[12]|downsample\.reduction)\.weight", 2),
    (r"head\.weight", 2),
    (r"(.*\.)?norm\d?\.(weight|bias)", 1),
    (r"recycle\.\d+\.scale", 1),
    (r".*\.bias", 1),
]
"""Names in a backbone, and how many dimensions they have."""


def check_entries(weights: Mapping[str, Tensor]) -> None:
    """Refuses what no model can have.

    Args:
        weights: Under our names, see :func:`~tvit_seg.convert_state_dict`. Of a segmentor's heads,
            which are many, only values are looked at.

    Raises:
        CheckpointError: If an entry is sparse, holds NaN or infinity, is empty, has another number
            of dimensions than its name says, or is not of floating-point numbers.
    """
    for name, value in weights.items():
        if value.layout != torch.strided:
            raise CheckpointError(f"{name} is a tensor of layout {value.layout}, a dense is needed")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"{name} holds NaN or infinity")
        if re.match(r"(decode|auxiliary)_head\.", name):
            continue
        rank = _rank(name.removeprefix("backbone."))
        if rank not in (None, value.ndim):
            raise CheckpointError(
                f"{name} has shape {tuple(value.shape)}, {rank} dimensions are needed"
            )
        if not value.numel():
            raise CheckpointError(f"{name} is empty, its shape is {tuple(value.shape)}")
        if rank is not None and not value.is_floating_point():
            raise CheckpointError(f"{name} is of {value.dtype}, floating-point numbers are needed")


def _rank(name: str) -> int | None:
    return next((rank for pattern, rank in _RANKS if re.fullmatch(pattern, name)), None)
