"""Patch embedding that computes the channels asked for."""

import torch.nn.functional as F
from timm.layers import PatchEmbed
from torch import Tensor


class NestedPatchEmbed(PatchEmbed):
    """timm's ``PatchEmbed`` for images of any size and for any slice of its channels.

    Args:
        img_size: (H, W) in pixels that the grid is made for.
        patch_size: In pixels.
        in_chans: Channels of the image.
        embed_dim: Full width D.
        bias: Whether the projection has a bias.
    """

    def __init__(self, img_size, patch_size, in_chans, embed_dim, bias=True):
        super().__init__(
            img_size, patch_size, in_chans, embed_dim, bias=bias, strict_img_size=False
        )

    def forward(self, images: Tensor, channels: slice = slice(None)) -> Tensor:
        """Embeds patches; the image is padded with zeros on the right and bottom.

        Args:
            images: (B, 3, H, W).
            channels: Which of the D output channels.

        Returns:
            (B, h w, number of channels), row by row.
        """
        patch = self.patch_size
        margin = [-length % p for length, p in zip(images.shape[-2:], patch, strict=True)]
        if any(margin):
            images = F.pad(images, (0, margin[1], 0, margin[0]))
        bias = None if self.proj.bias is None else self.proj.bias[channels]
        x = F.conv2d(images, self.proj.weight[channels], bias, stride=patch)  # (B, d, h, w)
        return x.flatten(2).transpose(1, 2)
