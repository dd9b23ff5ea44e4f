"""Weights are recognised, unwrapped, and refused where no model can have them."""

import pytest
import timm
import torch
from helpers.sources import swin, timm_vit, vit

from tvit_seg import ThinkingViT, convert_state_dict
from tvit_seg.errors import CheckpointError


@pytest.mark.parametrize("build", [vit, swin])
def test_own_weights_pass_unchanged(build):
    backbone = build()
    converted = convert_state_dict(backbone.state_dict(), backbone)
    assert converted.report.source == "our weights"
    assert not converted.report.missing
    assert not converted.report.dropped
    for name, value in backbone.state_dict().items():
        assert torch.equal(converted[name], value)


@pytest.mark.parametrize("wrap", ["state_dict", "model", None])
@pytest.mark.parametrize("module", ["module.", ""])
def test_wrapped_checkpoints(wrap, module):
    weights = {f"{module}{name}": value for name, value in timm_vit().state_dict().items()}
    converted = convert_state_dict({wrap: weights} if wrap else weights, vit())
    assert len(converted) == len(timm_vit().state_dict())


def test_prefix():
    weights = {f"teacher.{name}": value for name, value in timm_vit().state_dict().items()}
    weights["student.norm.weight"] = torch.zeros(1)
    assert set(convert_state_dict(weights, prefix="teacher")) == set(timm_vit().state_dict())


@pytest.mark.parametrize("name", ["resnet18", "swinv2_tiny_window8_256"])
def test_unknown_kinds(name):
    with torch.device("meta"):
        weights = timm.create_model(name, pretrained=False).state_dict()
    with pytest.raises(CheckpointError, match=r"unknown kind") as refused:
        convert_state_dict(weights)
    for family in ("encoder._thinking_*", "proj_layer*.weight", "blocks.N.attn.qkv.weight"):
        assert f"{family})" in str(refused.value)


@pytest.fixture(scope="module")
def weights():
    return ThinkingViT(
        img_size=32, patch_size=8, num_layers=1, num_classes=3, thinking_stages=(1, 2)
    ).state_dict()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("pos_embed", torch.Tensor.flatten, r"have 3 dimensions, none 0, got \(2176,\)"),
        ("patch_embed.proj.weight", lambda x: x[0], "have 4 dimensions"),
        ("recycle.0.proj.weight", torch.Tensor.flatten, "have 2 or 4 dimensions"),
        ("recycle.0.scale", lambda x: x[0], r"have 1 dimensions, none 0, got \(\)"),
        ("norm.weight", lambda x: x[:0], "have 1 dimensions, none 0"),
        ("norm.bias", lambda x: x > 0, "be of floating-point numbers, got torch.bool"),
        ("other", lambda x: torch.ones(1).to(torch.complex64), "be of floating-point numbers"),
        ("head.bias", lambda x: x[:-1], r"got shapes \(2,\) and \(3, 128\)"),
    ],
)
def test_refused_entries(weights, name, change, message):
    with pytest.raises(CheckpointError, match=f"{name} must.*{message}"):
        convert_state_dict({**weights, name: change(weights.get(name))})


def test_other_numbers_pass_in_buffers_and_heads(weights):
    more = {"decode_head.steps": torch.tensor(3), "decode_head.mask": torch.ones(0)}
    ours = {f"backbone.{name}": value.double() for name, value in weights.items()}
    converted = convert_state_dict({**ours, **more, "scale": torch.tensor(1.0)})
    assert more.keys() | ours.keys() <= converted.keys()
