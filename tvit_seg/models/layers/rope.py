"""Rotary position embedding of tokens, with timm's layers."""

from collections.abc import Sequence

import torch
from timm.layers import create_rope_embed
from torch import Tensor, nn

from ...utils.checks import check_choice


def build_rope(
    rope_type: str, dim: int, num_heads: int, ref_feat_shape: Sequence[int] | None = None, **kwargs
) -> nn.Module:
    """Build timm's embedding for grids of any size.

    Args:
        rope_type: ``'cat'`` (EVA: positions in patches) or ``'dinov3'`` (positions from -1 to 1).
        dim: Width of the tokens.
        num_heads: Heads at this width.
        ref_feat_shape: (h, w) of the grid whose positions other grids of ``'cat'`` are scaled to.
        **kwargs: Further arguments of timm's ``create_rope_embed``.
    """
    if check_choice("rope_type", rope_type, ("cat", "dinov3")) == "cat":
        kwargs.update(in_pixels=False, ref_feat_shape=ref_feat_shape)
    return create_rope_embed(rope_type, dim, num_heads, feat_shape=None, **kwargs)


def rotary_table(rope: nn.Module, grid: Sequence[int], num_prefix_tokens: int) -> Tensor:
    """Sines and cosines for each token of a grid, after tokens without position.

    Each head rotates by the same angles, so the table serves any number of heads. Row t belongs to
    token t: a selection of tokens takes the same selection of rows.

    Args:
        rope: From :func:`build_rope`.
        grid: (h, w).
        num_prefix_tokens: Number P of tokens before those of the grid, which are not rotated.

    Returns:
        (P + h w, 2 head_dim), sines first.
    """
    table = rope.get_embed(grid)  # (h w, 2 head_dim)
    still = torch.zeros_like(table[:1])
    still[:, table.shape[1] // 2 :] = 1
    return torch.cat((still.expand(num_prefix_tokens, -1), table))
