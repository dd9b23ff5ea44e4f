"""Nested layers that keep only the slices they read."""

import pytest
import torch

from tvit_seg.models.layers import NestedLayerNorm, NestedLinear


@pytest.mark.parametrize(("groups", "in_groups"), [(1, 1), (3, 1), (1, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(groups, in_groups, bias):
    layer = NestedLinear(24, 36, bias=bias, groups=groups, in_groups=in_groups)
    inputs = [torch.randn(5, width) for width in (16, 8)]
    wanted = [layer(x) for x in inputs]
    layer.cut(16, 24)
    assert layer.weight.shape == (24, 16)
    for x, y in zip(inputs, wanted, strict=True):  # narrower inputs still work
        torch.testing.assert_close(layer(x), y)


@pytest.mark.parametrize("groups", [1, 4])
def test_norm(groups):
    layer = NestedLayerNorm(24, groups=groups)
    torch.nn.init.normal_(layer.weight)
    x = torch.randn(5, 16)
    wanted = layer(x)
    layer.cut(16)
    assert layer.bias.shape == (16,)
    torch.testing.assert_close(layer(x), wanted)
