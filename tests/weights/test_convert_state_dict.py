"""Weights are recognised, unwrapped, and refused where no model can have them."""

import pytest
import timm
import torch
from helpers.sources import swin, timm_vit, vit

from tvit_seg import convert_state_dict
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


def test_wrapped_checkpoints():
    weights = {f"module.{name}": value for name, value in timm_vit().state_dict().items()}
    converted = convert_state_dict({"model": weights}, vit())
    assert len(converted) == len(weights)


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
