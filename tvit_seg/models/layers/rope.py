"""Rotary position embedding of tokens, with timm's layers."""

from collections.abc import Sequence

import torch
from timm.layers import RotaryEmbeddingDinoV3, create_rope_embed
from torch import Tensor, nn

from ...utils.checks import check_choice, check_keys


class RotaryPositions(RotaryEmbeddingDinoV3):
    """timm's embedding of DINOv3, also in exported graphs for images of any size.

    The grid is made where the periods are; timm's is copied from the CPU.
    """

    def get_embed(self, shape: Sequence[int]) -> Tensor:
        """Sines and cosines (h w, 2 head_dim) for a grid (h, w)."""
        if self.training and self.aug_active:
            return super().get_embed(shape)
        axes = [(torch.arange(n, device=self.periods.device) + 0.5) / n for n in shape]
        coords = 2 * torch.stack(torch.meshgrid(axes, indexing="ij"), dim=-1).flatten(0, 1) - 1
        return torch.cat(self._get_pos_embed_from_coords(coords), dim=-1)


_DINOV3_OPTIONS = (
    "temperature", "min_period", "max_period", "rotate_half",
    "shift_coords", "jitter_coords", "rescale_coords",
)  # fmt: skip


def build_rope(rope_type: str, dim: int, num_heads: int, **kwargs) -> nn.Module:
    """Build timm's embedding for grids of any size.

    Args:
        rope_type: ``'cat'`` (EVA: positions in patches) or ``'dinov3'`` (positions from -1 to 1).
        dim: Width of the tokens.
        num_heads: Heads at this width.
        **kwargs: Further arguments of timm's layer, such as the ``temperature`` and, of ``'cat'``,
            the ``ref_feat_shape`` (h, w) that the positions of all grids are scaled to.
    """
    if check_choice("rope_type", rope_type, ("cat", "dinov3")) == "dinov3":
        check_keys("rope of DINOv3", kwargs, _DINOV3_OPTIONS)
        return RotaryPositions(dim // num_heads, **kwargs)
    return create_rope_embed(rope_type, dim, num_heads, in_pixels=False, **kwargs)


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
