"""Token recycling: output tokens of a thinking stage in the input of the next."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Recycle(nn.Module):
    """Project all output tokens of a thinking stage to the width of the next and scale them.

    The learned scale starts at 0, so that initially each stage reads only its embedding.

    Args:
        in_features: Width d_{i-1} of the stage that has run.
        out_features: Width d_i of the stage to run.
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.proj = nn.Linear(in_features, out_features)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn final tokens (B, N, d_{i-1}), class token included, into a summand (B, N, d_i)."""
        return self.scale * self.proj(tokens)


class RecycleMap(nn.Module):
    """Recycling for a pyramid, from the grid of the last level to that of the first.

    A depthwise transposed convolution upsamples, a 1 x 1 convolution projects.

    Args:
        in_channels: Width of the last level in the stage that has run.
        out_channels: Width of the first level in the stage to run.
        stride: Positions of the first level per position of the last one, in each direction.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.upsample = nn.ConvTranspose2d(
            in_channels, in_channels, stride, stride, groups=in_channels, bias=False
        )
        self.proj = nn.Conv2d(in_channels, out_channels, 1)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: Tensor, grid: Sequence[int]) -> Tensor:
        """Turn final tokens into a summand of the embedding.

        Args:
            tokens: (B, h', w', d), the last level after the final norm.
            grid: (h, w) of the first level, at most ``stride`` times (h', w').

        Returns:
            (B, h, w, out_channels).
        """
        x = self.upsample(tokens.permute(0, 3, 1, 2))  # (B, d, stride h', stride w')
        x = self.proj(x[..., : grid[0], : grid[1]])  # (B, out_channels, h, w)
        return self.scale * x.permute(0, 2, 3, 1)
