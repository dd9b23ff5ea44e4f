"""Two-layer perceptron whose hidden width follows its input."""

from timm.layers import Mlp
from torch import Tensor

from .nested import NestedLinear


class NestedMlp(Mlp):
    """timm's ``Mlp`` with nested linear layers; the hidden width is int(mlp_ratio * d).

    Args:
        in_features: Full width.
        hidden_features: Full hidden width.
        bias: Adds biases.
        **kwargs: Further arguments of timm's ``Mlp``.
    """

    def __init__(self, in_features: int, hidden_features: int, bias: bool = True, **kwargs):
        super().__init__(in_features, hidden_features, bias=bias, **kwargs)
        self.fc1 = NestedLinear(in_features, hidden_features, bias=bias)
        self.fc2 = NestedLinear(hidden_features, in_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the perceptron to (..., d), d <= ``in_features``."""
        hidden = self.drop1(self.act(self.fc1(x)))  # (..., mlp_ratio * d)
        return self.drop2(self.fc2(hidden, x.shape[-1]))
