"""Window attention: at full width timm's, below it timm's of the slice."""

import pytest
import torch
from timm.models.swin_transformer import WindowAttention, window_partition

from tvit_seg.models.layers import NestedWindowAttention
from tvit_seg.models.layers.window_attention import shift_mask


def attention(**kwargs):
    options = dict(dim=16, num_heads=4, qkv_bias=True, window_size=4)
    return NestedWindowAttention(**{**options, **kwargs}).eval()


@torch.no_grad()
def test_full_width_equals_timm():
    layer, x = attention(), torch.randn(2, 8, 12, 16)
    theirs = WindowAttention(16, 4, window_size=4)
    theirs.load_state_dict(layer.state_dict())
    expected = theirs(window_partition(x, (4, 4)).flatten(1, 2))
    torch.testing.assert_close(window_partition(layer(x), (4, 4)).flatten(1, 2), expected)


@pytest.mark.parametrize(("slicing", "groups"), [("grouped", 3), ("leading", 1)])
@torch.no_grad()
def test_first_heads_of_q_k_and_v_or_leading_rows(slicing, groups):
    layer, x = attention(qkv_groups=groups), torch.randn(2, 4, 4, 8)
    rows = [*range(8), *range(16, 24), *range(32, 40)] if slicing == "grouped" else range(24)
    narrow = WindowAttention(8, 2, window_size=4)
    narrow.load_state_dict(
        {
            "relative_position_bias_table": layer.relative_position_bias_table[:, :2],
            "qkv.weight": layer.qkv.weight[list(rows), :8],
            "qkv.bias": layer.qkv.bias[list(rows)],
            "proj.weight": layer.proj.weight[:8, :8],
            "proj.bias": layer.proj.bias[:8],
        }
    )
    torch.testing.assert_close(layer(x).flatten(1, 2), narrow(x.flatten(1, 2)))


@torch.no_grad()
def test_a_level_below_the_window_uses_the_middle_of_the_table():
    """The same offsets find the same bias, whatever the size of the window."""
    large, small = attention(window_size=4), attention(window_size=3)
    weights = large.state_dict()
    table = weights["relative_position_bias_table"]
    weights["relative_position_bias_table"] = table.unflatten(0, (7, 7))[1:6, 1:6].flatten(0, 1)
    small.load_state_dict(weights)
    x = torch.randn(2, 3, 3, 16)
    torch.testing.assert_close(large(x), small(x))


@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [
        ((9, 12), (4, 4), (2, 2)),
        ((4, 12), (4, 4), (0, 2)),
        ((3, 5), (3, 4), (0, 2)),
        ((1, 1), (1, 1), (0, 0)),
    ],
)
def test_window_and_shift_fit_the_map(size, window, shift):
    assert attention(shifted=True).fit_window(size) == (window, shift)
    assert attention(shifted=True, always_partition=True).fit_window(size) == ((4, 4), (2, 2))
    assert attention(shifted=False).fit_window(size) == (window, (0, 0))


@torch.no_grad()
def test_no_attention_across_the_border_of_a_shift():
    layer = attention(shifted=True)
    x = torch.randn(1, 8, 8, 16)
    changed = x.clone()
    changed[:, -1] += 1  # the last row; the cyclic shift puts it beside the first
    same = (layer(x) == layer(changed)).all(-1)[0]
    assert same[:6].all()
    assert not same[6:].any()


def test_mask_keeps_what_was_wrapped_apart():
    mask = shift_mask((4, 8), (4, 4), (0, 2), torch.device("cpu"))
    assert mask.shape == (2, 1, 16, 16)
    assert not mask[0].any()
    columns = torch.arange(16) % 4 >= 2
    assert torch.equal(mask[1, 0], columns[:, None] != columns)


@torch.no_grad()
def test_no_image():
    assert attention()(torch.randn(0, 5, 5, 16)).shape == (0, 5, 5, 16)
