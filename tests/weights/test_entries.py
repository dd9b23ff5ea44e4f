"""What a model has no place for is dropped, folded or refused by name."""

import pytest
import torch
from helpers.contracts import close
from helpers.sources import swin, timm_swin, timm_vit, vit

from tvit_seg import convert_state_dict
from tvit_seg.errors import CheckpointError


def extra(name, shape=(64,)):
    return {**timm_vit().state_dict(), name: torch.rand(shape)}


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("norm_pre.weight", "norm before the blocks"),
        ("patch_embed.norm.weight", "norm after the patch embedding"),
        ("reg_token", "registers"),
        ("storage_tokens", "registers"),
        ("rope_embed.periods", "rotary"),
        ("rel_pos_bias.relative_position_bias_table", "relative positions"),
        ("blocks.N.attn.q_norm.weight", "queries and keys"),
        ("blocks.N.mlp.fc1_g.weight", "SwiGLU"),
        ("blocks.N.attn.relative_position_bias_table", "relative positions"),
        ("blocks.N.gamma3", "unknown"),
        ("something", "unknown"),
    ],
)
def test_what_would_change_the_features_is_refused(name, meaning):
    weights = timm_vit().state_dict()
    for block in "01":
        weights[name.replace("N", block)] = torch.rand(1, 4, 64)
    with pytest.raises(CheckpointError, match=f"{name.replace('N', '0')}.*{meaning}"):
        convert_state_dict(weights, vit())


@pytest.mark.parametrize("name", ["mask_token", "decoder_embed.weight", "head_dist.weight"])
def test_what_belongs_to_the_training_is_dropped(name):
    assert name in convert_state_dict(extra(name), vit()).report.dropped


@pytest.mark.parametrize("name", ["fc_norm.weight", "pre_logits.fc.weight", "attn_pool.q.weight"])
def test_another_head_takes_the_classifier_with_it(name):
    report = convert_state_dict(extra(name), vit()).report
    assert {name, "head.weight", "head.bias"} <= report.dropped.keys()
    assert {"head.weight", "head.bias"} <= set(report.missing)


@pytest.mark.parametrize(
    "name",
    [
        "cls_token",
        "pos_embed",
        "norm.weight",
        "norm.bias",
        "head.bias",
        "patch_embed.proj.weight",
        "blocks.1.mlp.fc2.bias",
        "blocks.0.attn.qkv.weight",
    ],
)
def test_what_is_missing_is_named(name):
    weights = timm_vit().state_dict()
    del weights[name]
    with pytest.raises(CheckpointError, match=name):
        convert_state_dict(weights, vit())


@pytest.mark.parametrize("name", ["recycle.0.scale", "recycle.0.proj.bias", "norm0.bias"])
def test_parts_of_ours_are_whole_or_absent(name):
    model = swin() if name.startswith("norm") else vit()
    weights = model.state_dict()
    del weights[name]
    with pytest.raises(CheckpointError, match=name.replace("scale", r"(scale|proj)")):
        convert_state_dict(weights, model)


@pytest.mark.parametrize("name", ["patch_embed.norm.weight", "layers.1.downsample.norm.bias"])
def test_swins_without_a_norm_are_refused(name):
    weights = timm_swin().state_dict()
    del weights[name]
    with pytest.raises(CheckpointError, match=name):
        convert_state_dict(weights, swin())


def test_positions_of_a_swin_are_refused():
    weights = {**timm_swin().state_dict(), "absolute_pos_embed": torch.zeros(1, 256, 16)}
    with pytest.raises(CheckpointError, match="absolute_pos_embed"):
        convert_state_dict(weights, swin())


@torch.no_grad()
def test_biases_that_no_block_has_are_zero():
    theirs = timm_vit(qkv_bias=False)
    weights = theirs.state_dict()
    theirs.patch_embed.proj.bias.zero_()
    del weights["patch_embed.proj.bias"]
    model = vit(thinking_stages=(4,))
    for bias in (model.patch_embed.proj.bias, model.blocks[0].attn.qkv.bias):
        bias.fill_(1.0)
    converted = convert_state_dict(weights, model)
    said = "absent, so 0 (layer scale 1): blocks.N.attn.qkv.bias, patch_embed.proj.bias"
    assert sorted(said) == sorted(
        next(line.strip() for line in str(converted.report).splitlines() if "absent" in line)
    )
    model.load_state_dict(converted)
    images = torch.randn(2, 3, 64, 64)
    close(model.forward_stages(images)[0].tokens, theirs.forward_features(images))


@torch.no_grad()
def test_without_a_position_of_the_class_token():
    theirs = timm_vit(no_embed_class=True)
    model = vit(thinking_stages=(4,))
    model.load_state_dict(convert_state_dict(theirs.state_dict(), model))
    assert not model.pos_embed[:, 0].any()
    images = torch.randn(2, 3, 64, 64)
    close(model.forward_stages(images)[0].tokens, theirs.forward_features(images))


def test_a_file_that_records_other_heads():
    meta = dict(backbone=dict(embed_dims=64, num_heads=2))
    checkpoint = dict(state_dict=timm_vit().state_dict(), meta=meta)
    with pytest.raises(CheckpointError, match="heads of 32 channels are recorded"):
        convert_state_dict(checkpoint, vit())


def test_a_recorded_activation_must_be_the_models():
    meta = dict(backbone=dict(activation="quick_gelu"))
    checkpoint = dict(state_dict=timm_vit().state_dict(), meta=meta)
    with pytest.raises(CheckpointError, match="quick_gelu"):
        convert_state_dict(checkpoint, vit())


def test_a_recorded_grid():
    """4 x 9 patches, as many as 6 x 6."""
    weights = timm_vit(img_size=96).state_dict()
    checkpoint = dict(state_dict=weights, meta=dict(backbone=dict(img_size=(64, 144))))
    assert convert_state_dict(checkpoint, vit(img_size=96)).report.resized == ["pos_embed"]
    assert not convert_state_dict(checkpoint, vit(img_size=(64, 144))).report.resized
