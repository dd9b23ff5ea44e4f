"""Perceptrons whose hidden width follows their input: H d / D channels, rounded down.

D is the full width and H the full hidden one.
"""

from timm.layers import GluMlp, Mlp, SwiGLU
from torch import Tensor

from .nested import NestedLinear


class NestedMlp(Mlp):
    """timm's ``Mlp`` with nested linear layers.

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
        hidden = self.norm(self.drop1(self.act(self.fc1(x))))  # (..., H d / D)
        return self.drop2(self.fc2(hidden, x.shape[-1]))


class NestedSwiGLU(SwiGLU):
    """timm's ``SwiGLU``, gate and values of two linear layers; arguments as of :class:`NestedMlp`.

    ``hidden_features`` is the width of each.
    """

    def __init__(self, in_features: int, hidden_features: int, bias: bool = True, **kwargs):
        super().__init__(in_features, hidden_features, bias=bias, **kwargs)
        self.fc1_g = NestedLinear(in_features, hidden_features, bias=bias)
        self.fc1_x = NestedLinear(in_features, hidden_features, bias=bias)
        self.fc2 = NestedLinear(hidden_features, in_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the perceptron to (..., d), d <= ``in_features``."""
        hidden = self.norm(self.drop1(self.act(self.fc1_g(x)) * self.fc1_x(x)))  # (..., H d / D)
        return self.drop2(self.fc2(hidden, x.shape[-1]))


class NestedSwiGLUPacked(GluMlp):
    """timm's ``SwiGLUPacked``, gate and values of one linear layer, the gate first.

    Arguments as of :class:`NestedSwiGLU`: ``hidden_features`` is half of the layer's rows.
    """

    def __init__(self, in_features: int, hidden_features: int, bias: bool = True, **kwargs):
        rows = 2 * hidden_features
        super().__init__(in_features, rows, bias=bias, gate_last=False, **kwargs)
        self.fc1 = NestedLinear(in_features, rows, bias=bias, groups=2)
        self.fc2 = NestedLinear(hidden_features, in_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the perceptron to (..., d), d <= ``in_features``."""
        gate, value = self.fc1(x).chunk(2, dim=-1)
        hidden = self.norm(self.drop1(self.act(gate) * value))  # (..., H d / D)
        return self.drop2(self.fc2(hidden, x.shape[-1]))
