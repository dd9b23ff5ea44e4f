"""ThinkingViT (https://arxiv.org/abs/2507.10800) with timm's ViT interface."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...utils.checks import check_choice
from ..backbones import ThinkingViT
from .interface import TimmInterface


class TimmThinkingViT(TimmInterface, ThinkingViT):
    """A :class:`~tvit_seg.ThinkingViT` under timm's interface and argument names.

    Args:
        thinking_stages: Attention heads of each thinking stage, increasing.
        img_size: Image size in pixels of the position embedding; others work as well.
        patch_size: Patch size in pixels.
        embed_dim: Width of the widest stage; None for 64 channels a head.
        depth: Number of blocks.
        **kwargs: Arguments of :class:`TimmInterface` and of :class:`~tvit_seg.ThinkingViT`.
    """

    pools = ("token", "avg", "avgmax", "max")

    def __init__(
        self,
        thinking_stages: Sequence[int] = (3, 6),
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        embed_dim: int | None = None,
        depth: int = 12,
        **kwargs,
    ):
        super().__init__(
            thinking_stages=thinking_stages,
            img_size=img_size,
            patch_size=patch_size,
            embed_dims=embed_dim,
            num_layers=depth,
            final_norm=False,
            **kwargs,
        )
        self.embed_dim = self.embed_dims
        self.feature_info = [
            dict(module=f"blocks.{i}", num_chs=self.embed_dim, reduction=patch_size)
            for i in range(depth)
        ]

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
    ) -> list | tuple[Tensor, list] | dict[str, Tensor | list[Tensor]]:
        """Features after blocks; see :meth:`TimmInterface.forward_intermediates`.

        Returns:
            Final tokens (B, P + h w, D) and the features, (B, D, h, w) or (B, h w, D), with
            ``return_prefix_tokens`` each in a pair with its class token and registers (B, P, D).
        """
        *features, final = self._intermediates(images, indices, norm)
        maps = [self._format(x, images.shape[-2:], output_fmt) for x in features]
        prefix = [x[:, : self.num_prefix_tokens] for x in features]
        if output_dict:
            result: dict[str, Tensor | list[Tensor]] = dict(image_intermediates=maps)
            if return_prefix_tokens:
                result["image_intermediates_prefix"] = prefix
            return result if intermediates_only else {**result, "image_features": final}
        if return_prefix_tokens:
            maps = list(zip(maps, prefix, strict=True))
        return maps if intermediates_only else (final, maps)

    def _format(self, x: Tensor, size: torch.Size, output_fmt: str) -> Tensor:
        check_choice("output_fmt", output_fmt, ("NCHW", "NLC"))
        x = x[:, self.num_prefix_tokens :]
        if output_fmt == "NLC":
            return x
        return x.transpose(1, 2).unflatten(2, self.grid(size)).contiguous()  # (B, D, h, w)

    def _to_feature(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Tokens (n, P + h w, D) in place of a map."""
        return self._pad(self.norm(x) if self.norm_intermediates else x)
