"""What no model can have is refused by name."""

import pytest
import torch

from tvit_seg import ThinkingSwin, ThinkingViT, convert_state_dict
from tvit_seg.errors import CheckpointError
from tvit_seg.weights.architecture import read_architecture

VIT = dict(img_size=32, patch_size=8, num_layers=1, num_classes=3, thinking_stages=(1, 2))
SWIN = dict(embed_dims=16, depths=(1, 1), num_heads=(1, 2), num_classes=3)


@pytest.fixture(scope="module")
def weights():
    return ThinkingViT(**VIT).state_dict()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("pos_embed", torch.Tensor.flatten, r"pos_embed has shape \(2176,\), 3 dimensions are"),
        ("patch_embed.proj.weight", lambda x: x[0], "patch_embed.proj.weight has shape"),
        ("recycle.0.proj.weight", torch.Tensor.flatten, "2 or 4 dimensions are needed"),
        ("recycle.0.scale", lambda x: x[0], r"recycle.0.scale has shape \(\), 1 dimensions"),
        ("blocks.0.attn.qkv.weight", lambda x: x[None], "2 dimensions are needed"),
        ("norm.weight", lambda x: x[:0], "norm.weight is empty"),
        ("norm.bias", lambda x: x.int(), "norm.bias is of torch.int32, floating-point"),
        ("norm.bias", lambda x: x > 0, "norm.bias is of torch.bool, floating-point"),
        ("head.bias", lambda x: x[:-1], "head.bias has 2 entries, its weight 3 rows"),
        ("head.weight", lambda x: x[:-1], "head.bias has 3 entries, its weight 2 rows"),
        ("head.bias", lambda x: x.to(torch.complex64), "head.bias is of torch.complex64"),
        ("other", lambda x: torch.ones(1).to(torch.complex64), "other is of torch.complex64"),
        ("head.weight", torch.Tensor.to_sparse, "head.weight is a tensor of layout"),
        ("head.weight", lambda x: x / 0, "head.weight holds NaN or infinity"),
    ],
)
def test_refused(weights, name, change, message):
    with pytest.raises(CheckpointError, match=message):
        convert_state_dict({**weights, name: change(weights.get(name))})


def test_widths_that_do_not_increase(weights):
    turned = {**weights, "recycle.0.proj.weight": weights["recycle.0.proj.weight"].T}
    turned["recycle.0.proj.bias"] = torch.zeros(64)
    with pytest.raises(CheckpointError, match=r"from and to widths \[128, 64\], which do not incr"):
        read_architecture(convert_state_dict(turned))


@pytest.mark.parametrize("name", ["pos_embed", "blocks.0.mlp.fc1.weight"])
def test_what_the_architecture_is_read_from(weights, name):
    lacking = {key: value for key, value in weights.items() if key != name}
    with pytest.raises(CheckpointError, match=f"not found: {name}"):
        read_architecture(convert_state_dict(lacking))


def test_other_numbers_pass_in_buffers_and_heads(weights):
    more = {
        "decode_head.bn.num_batches_tracked": torch.tensor(3),
        "decode_head.mask": torch.ones(0),
    }
    ours = {f"backbone.{name}": value for name, value in weights.items()}
    assert more.keys() <= convert_state_dict({**ours, **more}).keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_point(weights, dtype):
    assert convert_state_dict({k: v.to(dtype) for k, v in weights.items()}).keys() == weights.keys()


def test_a_swin_passes():
    own = ThinkingSwin(thinking_stages=((1, 1), (1, 2)), **SWIN).state_dict()
    assert convert_state_dict(own).keys() == own.keys()


def test_numbers_without_dimensions(weights):
    convert_state_dict({**weights, "scale": torch.tensor(1.0)})
    odd = {"other.weight": torch.tensor(1.0), "other.bias": torch.ones(2)}
    with pytest.raises(CheckpointError, match=r"other.bias has 2 entries, its weight no rows"):
        convert_state_dict({**weights, **odd})
