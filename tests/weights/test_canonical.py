"""Parts of networks that code bases spell and split in several ways."""

import pytest
import torch
from helpers.contracts import close
from helpers.sources import same, timm_vit, vit

from tvit_seg import convert_state_dict
from tvit_seg.errors import CheckpointError


@pytest.fixture(scope="module")
def scaled():
    model = timm_vit(init_values=1.0, num_classes=0)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.uniform_(parameter)
    return model


@pytest.mark.parametrize(
    "spelling",
    [
        "blocks.{}.ls{}.gamma",
        "blocks.{}.gamma_{}",
        "blocks.{}.gamma{}.weight",
        "blocks.{}.layer_scale{}.lambda1",
        "blocks.{}.lambda_{}",
        "blocks.{}.ls_{}.gamma",
        "blocks.{}.attn.gamma{}.weight",
    ],
)
@torch.no_grad()
def test_spellings_of_layer_scale(scaled, spelling):
    weights = scaled.state_dict()
    for block in (0, 1):
        for part in (1, 2):
            value = weights.pop(f"blocks.{block}.ls{part}.gamma")
            weights[spelling.format(block, part)] = value
    model = vit(num_classes=0, thinking_stages=(4,))
    converted = convert_state_dict(weights, model)
    assert not converted.report.dropped
    model.load_state_dict(converted)
    images = torch.randn(2, 3, 64, 64)
    close(model.forward_stages(images)[0].tokens, scaled.forward_features(images))


def test_a_block_without_its_scale(scaled):
    weights = scaled.state_dict()
    del weights["blocks.1.ls2.gamma"]
    with pytest.raises(CheckpointError, match=r"blocks\.1\.ls2\.gamma"):
        convert_state_dict(weights)


@pytest.mark.parametrize(
    ("weight", "bias"),
    [("{}.weight", "{}.bias"), ("{}_proj.weight", "{}_proj.bias"), (None, "{}_bias")],
)
def test_separate_queries_keys_and_values(weight, bias):
    weights = timm_vit().state_dict()
    expected = dict(weights)
    for block in ("blocks.0.attn", "blocks.1.attn"):
        rows = weights.pop(f"{block}.qkv.bias").chunk(3)
        for part, value in zip("qv", (rows[0], rows[2]), strict=True):
            weights[f"{block}.{bias.format(part)}"] = value
        expected[f"{block}.qkv.bias"] = torch.cat((rows[0], torch.zeros(64), rows[2]))
        for part, value in zip("qkv", weights[f"{block}.qkv.weight"].chunk(3), strict=True):
            if weight:
                weights[f"{block}.{weight.format(part)}"] = value
        if weight:
            del weights[f"{block}.qkv.weight"]
    same(dict(convert_state_dict(weights, vit(thinking_stages=(4,)))), expected)


def test_a_masked_bias():
    weights = timm_vit().state_dict()
    mask = torch.ones(192)
    mask[64:128] = 0
    for block in "01":
        weights[f"blocks.{block}.attn.qkv.bias_mask"] = mask
    bias = convert_state_dict(weights)["blocks.0.attn.qkv.bias"]
    assert torch.equal(bias, weights["blocks.0.attn.qkv.bias"] * mask)


@pytest.mark.parametrize("prefix", ["model.model.", "_orig_mod.", "encoder_q.", "visual.trunk."])
def test_the_prefix_of_a_container_is_found(prefix):
    weights = {f"{prefix}{name}": value for name, value in timm_vit().state_dict().items()}
    weights["queue"] = torch.zeros(1)
    converted = convert_state_dict({"state_dict": weights})
    expected = timm_vit().state_dict().keys()
    assert converted.keys() - {"queue"} == expected


def test_one_of_several_networks_must_be_named():
    theirs = timm_vit().state_dict()
    weights = {f"module.base_encoder.{name}": value for name, value in theirs.items()}
    weights |= {f"module.momentum_encoder.{name}": value for name, value in theirs.items()}
    with pytest.raises(CheckpointError, match=r"base_encoder\., momentum_encoder\."):
        convert_state_dict(weights)
    same(dict(convert_state_dict(weights, prefix="base_encoder")), theirs)


def test_two_entries_of_one_meaning():
    weights = {**timm_vit().state_dict(), "class_token": torch.zeros(1, 1, 64)}
    with pytest.raises(CheckpointError, match="cls_token and class_token"):
        convert_state_dict(weights)
