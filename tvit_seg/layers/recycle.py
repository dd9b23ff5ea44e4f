"""Token recycling: what a thinking stage hands to the next one."""

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
