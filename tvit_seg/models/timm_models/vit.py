"""ThinkingViT (https://arxiv.org/abs/2507.10800) as timm has its vision transformers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..backbones import ThinkingViT
from .interface import TimmInterface


class TimmThinkingViT(TimmInterface, ThinkingViT):
    """A :class:`~tvit_seg.ThinkingViT` under timm's interface and argument names.

    Args:
        thinking_stages: Attention heads of each thinking stage, increasing.
        img_size: Image size in pixels the position embedding is made for; others work as well.
        patch_size: Patch size in pixels.
        embed_dim: Width of the widest stage; None for 64 channels a head.
        depth: Number of blocks.
        **kwargs: Arguments of :class:`TimmInterface` and, by their names there, of
            :class:`~tvit_seg.ThinkingViT`.
    """

    pools = ("token", "avg", "avgmax", "max")
    num_prefix_tokens = 1

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

        Args:
            images: (B, C, H, W), any size.
            indices: Which blocks; an integer takes the last ones, None all.
            return_prefix_tokens: Whether each feature comes as a pair with its class token
                (B, 1, D).
            norm: Whether to apply the final norm to them.
            stop_early: Has no effect: later stages need the last block of earlier ones.
            output_fmt: ``'NCHW'`` or ``'NLC'``.
            intermediates_only: Whether to leave out the final tokens.
            output_dict: Whether to return ``image_features``, ``image_intermediates`` and
                ``image_intermediates_prefix`` in a dict.

        Returns:
            Final tokens (B, 1 + h w, D) and the features, (B, D, h, w) or (B, h w, D).
        """
        *features, final = self._intermediates(images, indices, norm)
        maps = [self._format(x, images.shape[-2:], output_fmt) for x in features]
        prefix = [x[:, :1] for x in features]
        if output_dict:
            result = dict(image_intermediates=maps)
            if return_prefix_tokens:
                result["image_intermediates_prefix"] = prefix
            return result if intermediates_only else {**result, "image_features": final}
        if return_prefix_tokens:
            maps = list(zip(maps, prefix, strict=True))
        return maps if intermediates_only else (final, maps)

    def _format(self, x: Tensor, size: torch.Size, output_fmt: str) -> Tensor:
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt={output_fmt!r} must be 'NCHW' or 'NLC'")
        x = x[:, 1:]
        if output_fmt == "NLC":
            return x
        return x.transpose(1, 2).unflatten(2, self.grid(size)).contiguous()  # (B, D, h, w)

    def _to_feature(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Tokens as they are, (n, 1 + h w, D)."""
        return self._pad(self.norm(x) if self.norm_intermediates else x)
