"""Token recycling: what a thinking stage hands to the next one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Recycle(nn.Module):
    """Projects all output tokens of a thinking stage to the width of the next, times a scalar.

    The scalar starts at 0, so that at first every stage sees its embedding alone.

    Args:
        in_features: Width d_{i-1} of the stage that has run.
        out_features: Width d_i of the stage to run.
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.proj = nn.Linear(in_features, out_features)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Recycles tokens.

        Args:
            tokens: (B, N, d_{i-1}), class token included, after the final norm.

        Returns:
            (B, N, d_i), to be added to the embedding.
        """
        return self.scale * self.proj(tokens)


class RecycleMap(nn.Module):
    """The same for a pyramid: brings the last level's tokens back to the grid of the first.

    A depthwise transposed convolution upsamples, a 1 x 1 convolution projects.

    Args:
        in_channels: Width of the last level in the stage that has run.
        out_channels: Width of the first level in the stage to run.
        stride: How many positions of the first level one of the last covers, in each direction.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.upsample = nn.ConvTranspose2d(
            in_channels, in_channels, stride, stride, groups=in_channels, bias=False
        )
        self.proj = nn.Conv2d(in_channels, out_channels, 1)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: Tensor, grid: Sequence[int]) -> Tensor:
        """Recycles tokens.

        Args:
            tokens: (B, h', w', d), the last level after the final norm.
            grid: Rows h and columns w of the first level; what reaches over it is cut off.

        Returns:
            (B, h, w, out_channels), to be added to the embedding.
        """
        x = self.upsample(tokens.permute(0, 3, 1, 2))  # (B, d, stride h', stride w')
        x = self.proj(x[..., : grid[0], : grid[1]])  # (B, out_channels, h, w)
        return self.scale * x.permute(0, 2, 3, 1)
