"""ThinkingSwin (https://arxiv.org/abs/2507.10800) with timm's Swin interface."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...utils.checks import check_choice
from ..backbones import ThinkingSwin
from .interface import TimmInterface


class TimmThinkingSwin(TimmInterface, ThinkingSwin):
    """A :class:`~tvit_seg.ThinkingSwin` under timm's interface and argument names.

    Args:
        thinking_stages: Attention heads of every level, for each thinking stage.
        img_size: Without effect: images may have any size.
        patch_size: Patch size in pixels.
        embed_dim: Full width of the first level; None for 32 channels a head.
        depths: Number of blocks at each level.
        **kwargs: Arguments of :class:`TimmInterface` and of :class:`~tvit_seg.ThinkingSwin`.
    """

    pools = ("avg", "avgmax", "max")
    output_fmt = "NHWC"

    def __init__(
        self,
        thinking_stages: Sequence[Sequence[int]] | None = None,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 4,
        embed_dim: int | None = None,
        depths: Sequence[int] = (2, 2, 6, 2),
        **kwargs,
    ):
        super().__init__(
            thinking_stages=thinking_stages,
            pretrain_img_size=img_size,
            patch_size=patch_size,
            embed_dims=embed_dim,
            depths=depths,
            out_indices=-1,  # makes no norms of lower levels
            **kwargs,
        )
        self.embed_dim = self.embed_dims
        self.feature_info = [
            dict(module=f"layers.{level}", num_chs=width, reduction=patch_size * 2**level)
            for level, width in enumerate(self.level_dims)
        ]

    def _format(self, x: Tensor, size: torch.Size, output_fmt: str) -> Tensor:
        check_choice("output_fmt", output_fmt, ("NCHW",))
        return x.permute(0, 3, 1, 2).contiguous()

    def _to_map(self, x: Tensor, level: int, final: Tensor | None) -> Tensor:
        """Tokens (n, h, w, D_l) in place of a map; the final norm fits the last level."""
        if self.norm_intermediates and final is not None:
            x = final
        return self._pad(x, self.level_dims[level])
