"""Patch embedding that computes the channels asked for."""

import torch.nn.functional as F
from timm.layers import PatchEmbed
from torch import Tensor


class NestedPatchEmbed(PatchEmbed):
    """timm's ``PatchEmbed`` for images of any size and for any slice of its channels.

    Args:
        img_size: (H, W) in pixels that the grid is made for; None where no grid is needed.
        patch_size: In pixels.
        in_chans: Channels of the image.
        embed_dim: Full width D.
        bias: Whether the projection has a bias.
        flatten: Whether rows and columns are joined to one dimension.
        norm_layer: Makes ``norm``, which the caller applies: its statistics depend on how many
            channels there are in the end.
    """

    def __init__(
        self, img_size, patch_size, in_chans, embed_dim, bias=True, flatten=True, norm_layer=None
    ):
        super().__init__(
            img_size,
            patch_size,
            in_chans,
            embed_dim,
            norm_layer=norm_layer,
            flatten=flatten,
            bias=bias,
            strict_img_size=False,
        )

    def forward(self, images: Tensor, channels: slice = slice(None)) -> Tensor:
        """Embeds patches; the image is padded with zeros on the right and bottom.

        Args:
            images: (B, 3, H, W).
            channels: Which of the D output channels.

        Returns:
            (B, h w, number of channels), row by row; (B, h, w, number of channels) unless
            flattened.
        """
        patch = self.patch_size
        margin = [-length % p for length, p in zip(images.shape[-2:], patch, strict=True)]
        if any(margin):
            images = F.pad(images, (0, margin[1], 0, margin[0]))
        bias = None if self.proj.bias is None else self.proj.bias[channels]
        x = F.conv2d(images, self.proj.weight[channels], bias, stride=patch)  # (B, d, h, w)
        return x.flatten(2).transpose(1, 2) if self.flatten else x.permute(0, 2, 3, 1)
