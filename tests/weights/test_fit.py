"""Weights in a model's shapes: filled, cropped, resized."""

import pytest
import torch
from helpers.contracts import close
from helpers.sources import swin, timm_swin, timm_vit, vit
from timm.models.swin_transformer import checkpoint_filter_fn

from tvit_seg import convert_state_dict
from tvit_seg.errors import CheckpointError


def test_smaller_fills_leading_slices():
    narrow, backbone = timm_vit(32, 2).state_dict(), vit()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    converted = convert_state_dict(narrow, backbone)
    qkv = converted["blocks.1.attn.qkv.weight"]
    for part in range(3):
        rows = slice(64 * part, 64 * part + 32)
        assert torch.equal(qkv[rows, :32], narrow["blocks.1.attn.qkv.weight"][32 * part :][:32])
        assert torch.equal(qkv[rows, 32:], before["blocks.1.attn.qkv.weight"][rows, 32:])
    assert torch.equal(converted["norm.weight"][:32], narrow["norm.weight"])
    assert "blocks.1.attn.qkv.weight" in converted.report.partial
    assert not converted.report.cropped


WIDE_SWIN = dict(embed_dims=32, num_heads=(4, 8, 16), thinking_stages=((1, 2, 4), (4, 8, 16)))


@pytest.mark.parametrize(
    ("build", "wide"),
    [
        (vit, dict(embed_dims=128, num_heads=8, thinking_stages=(2, 8))),
        (swin, WIDE_SWIN),
    ],
)
@torch.no_grad()
def test_larger_is_cropped_to_the_same_narrow_stage(build, wide):
    backbone, wide = build(), build(**wide)
    converted = convert_state_dict(wide.state_dict(), backbone)
    assert "head.weight" in converted.report.cropped
    assert not converted.report.dropped
    backbone.load_state_dict(converted)
    images = torch.randn(1, 3, 64, 64)
    close(backbone.forward_stages(images)[0].logits, wide.forward_stages(images)[0].logits)


def test_a_leading_first_level_is_not_cropped():
    """Its patches are normalised at full width."""
    weights = swin(**WIDE_SWIN, slicing="leading").state_dict()
    with pytest.raises(CheckpointError, match="set embed_dims and num_heads"):
        convert_state_dict(weights, swin(slicing="leading"))


@torch.no_grad()
def test_position_embedding_is_resized():
    backbone = vit(img_size=(32, 96))
    converted = convert_state_dict(timm_vit(img_size=64).state_dict(), backbone)
    assert converted.report.resized == ["pos_embed"]
    assert converted["pos_embed"].shape == (1, 1 + 2 * 6, 64)


def test_patch_embedding_is_resized():
    converted = convert_state_dict(timm_vit().state_dict(), vit(patch_size=8, img_size=32))
    assert "patch_embed.proj.weight" in converted.report.resized
    assert converted["patch_embed.proj.weight"].shape == (64, 3, 8, 8)


def test_a_position_embedding_that_is_no_square():
    weights = timm_vit().state_dict()
    weights["pos_embed"] = torch.zeros(1, 1 + 7, 64)
    with pytest.raises(CheckpointError, match="7 patches is not square"):
        convert_state_dict(weights, vit())


@torch.no_grad()
def test_tables_are_resized_for_another_window():
    """As timm does; a bias that rises with the offset still does."""
    weights = timm_swin().state_dict()
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    offsets = torch.meshgrid(torch.arange(-3.0, 4), torch.arange(-3.0, 4), indexing="ij")
    weights[name] = torch.stack(offsets, dim=-1).flatten(0, 1)
    backbone = swin(window_size=7)
    converted = convert_state_dict(weights, backbone)
    tables = [name for name in weights if name.endswith("bias_table")]
    assert sorted(converted.report.resized) == sorted(tables)
    expected = checkpoint_filter_fn(weights, timm_swin(img_size=224, window_size=7))
    assert all(torch.equal(converted[name], expected[name]) for name in tables)
    rows = converted[name].unflatten(0, (13, 13))[:, 6, 0]
    assert (rows.diff() > -1e-5).all()
    assert (rows[4:9].diff() > 0.5).all()
    backbone.load_state_dict(converted, strict=False)
    assert torch.isfinite(backbone(torch.randn(1, 3, 64, 64))[-1]).all()


def test_a_table_that_is_no_square():
    weights = timm_swin().state_dict()
    weights["layers.0.blocks.0.attn.relative_position_bias_table"] = torch.zeros(7 * 5, 2)
    with pytest.raises(CheckpointError, match="table of 35 relative positions is not square"):
        convert_state_dict(weights, swin())


@pytest.mark.parametrize(("source", "build"), [(timm_vit, vit), (timm_swin, swin)])
def test_image_head_of_other_classes_is_left_random(source, build):
    converted = convert_state_dict(source(num_classes=1000).state_dict(), build())
    assert converted.report.dropped["head.weight"] == "1000 classes, the model has 10"
    assert "head.weight" in converted.report.missing


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("pos_embed", torch.flatten),
        ("patch_embed.proj.weight", lambda x: x[0]),
        ("head.bias", lambda x: x.sum()),
        ("blocks.0.mlp.fc1.weight", lambda x: torch.cat((x, x))),
    ],
)
def test_other_shapes_are_refused(name, change):
    weights = timm_vit().state_dict()
    with pytest.raises(CheckpointError, match=name):
        convert_state_dict({**weights, name: change(weights[name])}, vit())


@pytest.mark.parametrize("channels", [1, 6])
def test_other_image_channels(channels):
    """As in timm: the response to a grey image stays."""
    weights = timm_vit().state_dict()
    converted = convert_state_dict(weights, vit(in_channels=channels))
    name = "patch_embed.proj.weight"
    assert converted.report.resized == [name]
    close(converted[name].sum(dim=1), weights[name].sum(dim=1))
    with pytest.raises(CheckpointError, match="5 image channels cannot be made one of 3"):
        convert_state_dict(timm_vit(in_chans=5).state_dict(), vit())
