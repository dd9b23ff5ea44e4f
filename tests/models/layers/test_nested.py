"""Nested layers: at full width their parent, below it the parent of the slice."""

import pytest
import torch
from timm.layers import Attention, Mlp, PatchEmbed
from torch import nn

from tvit_seg.models.layers import (
    NestedAttention,
    NestedLayerNorm,
    NestedLinear,
    NestedMlp,
    NestedPatchEmbed,
    Recycle,
    RecycleMap,
)


def test_linear_at_full_width_is_its_parent():
    layer, x = NestedLinear(8, 12), torch.randn(3, 8)
    assert torch.equal(layer(x), nn.Linear.forward(layer, x))


def test_linear_slices_rows_and_columns():
    layer, x = NestedLinear(8, 12), torch.randn(3, 4)
    torch.testing.assert_close(layer(x), x @ layer.weight[:6, :4].T + layer.bias[:6])
    torch.testing.assert_close(
        layer(x, 12), x @ layer.weight[:, :4].T + layer.bias, rtol=1e-5, atol=1e-6
    )


def test_linear_slices_each_group():
    layer, x = NestedLinear(8, 24, groups=3), torch.randn(3, 4)
    rows = [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]
    torch.testing.assert_close(layer(x), x @ layer.weight[rows, :4].T + layer.bias[rows])


def test_linear_slices_each_group_of_columns():
    layer, x = NestedLinear(8, 6, in_groups=2), torch.randn(3, 4)
    expected = x @ layer.weight[:3, [0, 1, 4, 5]].T + layer.bias[:3]
    torch.testing.assert_close(layer(x), expected)


def test_layer_norm_uses_the_statistics_of_the_slice():
    layer, x = NestedLayerNorm(8), torch.randn(3, 4)
    with torch.no_grad():
        layer.weight.normal_()
    expected = nn.functional.layer_norm(x, (4,)) * layer.weight[:4]
    torch.testing.assert_close(layer(x), expected)
    full = torch.randn(3, 8)
    assert torch.equal(layer(full), nn.LayerNorm.forward(layer, full))
    assert NestedLayerNorm(8, elementwise_affine=False)(x).shape == (3, 4)


def test_layer_norm_slices_each_group():
    layer, x = NestedLayerNorm(8, groups=2), torch.randn(3, 4)
    with torch.no_grad():
        layer.weight.normal_()
    expected = nn.functional.layer_norm(x, (4,)) * layer.weight[[0, 1, 4, 5]]
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (NestedAttention(16, 4, qkv_bias=True), Attention(16, 4, qkv_bias=True)),
        (NestedMlp(16, 64), Mlp(16, 64)),
    ],
)
def test_parts_at_full_width_equal_timm(ours, theirs):
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(ours(x), theirs(x))


def test_attention_runs_the_first_heads():
    layer, x = NestedAttention(16, 4, qkv_bias=True), torch.randn(2, 5, 8)
    narrow = Attention(8, 2, qkv_bias=True)
    rows = [*range(8), *range(16, 24), *range(32, 40)]
    narrow.load_state_dict(
        {
            "qkv.weight": layer.qkv.weight[rows, :8],
            "qkv.bias": layer.qkv.bias[rows],
            "proj.weight": layer.proj.weight[:8, :8],
            "proj.bias": layer.proj.bias[:8],
        }
    )
    torch.testing.assert_close(layer(x), narrow(x))


def test_patch_embedding_by_channels():
    layer = NestedPatchEmbed((32, 32), 8, 3, 12)
    timm = PatchEmbed(32, 8, 3, 12)
    timm.load_state_dict(layer.state_dict())
    images = torch.randn(2, 3, 32, 32)
    full = layer(images)
    torch.testing.assert_close(full, timm(images))
    torch.testing.assert_close(layer(images, slice(4, 9)), full[..., 4:9])


def test_patch_embedding_pads_right_and_bottom():
    layer = NestedPatchEmbed((32, 32), 8, 3, 12)
    images = torch.randn(2, 3, 20, 31)
    padded = torch.zeros(2, 3, 24, 32)
    padded[..., :20, :31] = images
    torch.testing.assert_close(layer(images), layer(padded))


def test_recycling_starts_silent():
    recycle = Recycle(4, 8)
    tokens = torch.randn(2, 5, 4)
    assert (recycle(tokens) == 0).all()
    assert recycle(tokens).shape == (2, 5, 8)


@torch.no_grad()
def test_recycling_brings_the_last_level_to_the_first():
    """Each token reaches the positions it covers, those on the image."""
    recycle = RecycleMap(4, 8, stride=4)
    tokens = torch.randn(2, 2, 3, 4)
    assert (recycle(tokens, (7, 9)) == 0).all()
    recycle.scale.fill_(1)
    changed = tokens.clone()
    changed[:, 1, 0] += 1
    moved = (recycle(tokens, (7, 9)) != recycle(changed, (7, 9))).any(-1)
    assert moved.shape == (2, 7, 9)
    assert moved[:, 4:, :4].all()
    assert moved.sum() == 2 * 3 * 4
