"""Linear layer and layer norm that work on any leading slice of their channels."""

import torch.nn.functional as F
from torch import Tensor, nn


class NestedLinear(nn.Linear):
    """``nn.Linear`` whose leading slice acts on inputs narrower than ``in_features``.

    Args:
        in_features: Full input width.
        out_features: Full output width.
        bias: Whether there is a bias.
        groups: The output rows form this many equal groups, each cut on its own (3 for a joint
            query-key-value projection, whose rows are all of q, then all of k, then all of v).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        groups: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        if out_features % groups:
            raise ValueError(f"out_features={out_features} is not divisible by groups={groups}")
        self.groups = groups

    def forward(self, x: Tensor, out_features: int | None = None) -> Tensor:
        """Applies the slice that fits the input.

        Args:
            x: (..., d) with d <= ``in_features``.
            out_features: Output width; by default it shrinks as the input does.

        Returns:
            (..., out_features).
        """
        width = x.shape[-1]
        if out_features is None:
            out_features = width * self.out_features // self.in_features
        if out_features == self.out_features:
            return F.linear(x, self.weight[:, :width], self.bias)
        rows = out_features // self.groups
        weight = self.weight.unflatten(0, (self.groups, -1))[:, :rows, :width].flatten(0, 1)
        bias = self.bias
        if bias is not None:
            bias = bias.unflatten(0, (self.groups, -1))[:, :rows].flatten()
        return F.linear(x, weight, bias)


class NestedLayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` over the channels that are there, with the leading slice of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises over the d channels of the input.

        Args:
            x: (..., d) with d <= the full width.

        Returns:
            (..., d).
        """
        width = x.shape[-1]
        weight = None if self.weight is None else self.weight[:width]
        bias = None if self.bias is None else self.bias[:width]
        return F.layer_norm(x, (width,), weight, bias, self.eps)
