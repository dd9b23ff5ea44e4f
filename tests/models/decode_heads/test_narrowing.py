"""Rules that cut layers, which give what the full ones give on the channels that are there."""

import pytest
import torch
from torch import nn

from tvit_seg.errors import ConfigError
from tvit_seg.models.decode_heads.narrowing import cut, leading, rule_of, runs_of

SOME = torch.tensor([1, 1, 0, 0, 1, 1, 0, 0], dtype=torch.bool)
LAYERS = [
    nn.Linear(8, 6),
    nn.Conv2d(8, 6, 3),
    nn.Conv2d(8, 8, 3, groups=4),
    nn.Conv2d(8, 16, 3, groups=8),
    nn.ConvTranspose2d(8, 6, 2),
    nn.ConvTranspose2d(8, 16, 2, groups=8),
    nn.BatchNorm2d(8).eval(),
    nn.InstanceNorm2d(8, affine=True),
    nn.GroupNorm(4, 8),
]


def test_runs():
    assert runs_of(SOME) == ((0, 2), (4, 2))
    x = torch.arange(8)
    assert torch.equal(cut(x, {0: runs_of(SOME)}), x[SOME])
    assert leading(10, 1, 3).sum() == 3
    assert leading(1, 1, 3).sum() == 1


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_layer(layer):
    rule, dim = rule_of(layer)
    x = torch.randn(2, 8, 5, 5).movedim(1, dim)
    there = SOME.view(-1, *[1] * (x.ndim - 1)).movedim(0, dim)
    expected = layer(x * there)
    found = rule(SOME, leading(expected.shape[dim], 1, 2))
    narrow = {
        name: cut(value, found.cuts.get(name, {})) for name, value in layer.state_dict().items()
    }
    for name, value in found.attributes.items():
        setattr(layer, name, value)
    index = [SOME.nonzero().flatten(), found.out.nonzero().flatten()]
    y = torch.func.functional_call(layer, narrow, x.index_select(dim, index[0]))
    torch.testing.assert_close(y, expected.index_select(dim, index[1]))


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(8, 8, 1, groups=2), nn.GroupNorm(2, 8), nn.MultiheadAttention(8, 2)]
)
def test_groups_are_not_cut_apart(layer):
    with pytest.raises(ConfigError, match="groups or heads of 4 channels"):
        rule_of(layer)[0](SOME, SOME)


def test_unknown_layer():
    assert rule_of(nn.PReLU()) is None
