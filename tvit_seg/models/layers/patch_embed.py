"""Patch embedding that computes any slice of its channels."""

import torch.nn.functional as F
from timm.layers import PatchEmbed
from torch import Tensor, nn

from .nested import Sliced


class SlicedConv2d(Sliced, nn.Conv2d):
    """``nn.Conv2d`` that computes any slice of its output channels."""

    def forward(self, x: Tensor, channels: slice = slice(None)) -> Tensor:
        """Convolve (B, C, H, W) to the channels of a slice."""
        bias = None if self.bias is None else self.bias[channels]
        return self._conv_forward(x, self.weight[channels], bias)


class NestedPatchEmbed(PatchEmbed):
    """timm's ``PatchEmbed`` for images of any size and for any slice of its channels.

    Args:
        *args: Arguments of timm's ``PatchEmbed``; ``img_size`` only sets the nominal grid.
        **kwargs: Likewise. The caller applies the ``norm``: its statistics depend on the final
            number of channels.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, strict_img_size=False, **kwargs)
        conv = self.proj
        shape = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride
        self.proj = SlicedConv2d(*shape, bias=conv.bias is not None, device="meta")
        self.proj.weight, self.proj.bias = conv.weight, conv.bias

    def forward(self, images: Tensor, channels: slice = slice(None)) -> Tensor:
        """Embed patches; the image is padded with zeros on the right and bottom.

        Args:
            images: (B, 3, H, W).
            channels: Slice of the output channels, d of them.

        Returns:
            (B, h w, d), row by row; (B, h, w, d) with ``flatten=False``.
        """
        patch = self.patch_size
        margin = [-length % p for length, p in zip(images.shape[-2:], patch, strict=True)]
        if any(margin):
            images = F.pad(images, (0, margin[1], 0, margin[0]))
        x = self.proj(images, channels)  # (B, d, h, w)
        return x.flatten(2).transpose(1, 2) if self.flatten else x.permute(0, 2, 3, 1)
