"""What the entries of a checkpoint must be like, whatever the model."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import CheckpointError

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
            not of floating-point numbers where a model's are.
    """
    for name, value in weights.items():
        if value.layout != torch.strided:
            raise CheckpointError(f"{name} is a tensor of layout {value.layout}, a dense is needed")
        known = value.is_floating_point() and value.device.type != "meta"
        if known and not torch.isfinite(value).all():
            raise CheckpointError(f"{name} holds NaN or infinity")
        if value.is_complex():
            raise CheckpointError(f"{name} is of {value.dtype}, floating-point numbers are needed")
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
        if rows.shape[:1] != value.shape[:1]:
            has, needed = (x.shape[0] if x.ndim else "no" for x in (value, rows))
            raise CheckpointError(f"{name} has {has} entries, its weight {needed} rows")


def _ranks(name: str) -> list[int]:
    return next((ranks for pattern, *ranks in _RANKS if re.fullmatch(pattern, name)), [])
