"""Swins back to the authors' layout, and single stages as plain timm models."""

import pytest
import torch
from helpers.contracts import close
from mmseg.registry import MODELS
from timm.models.swin_transformer import SwinTransformer

from tvit_seg import FixedGate, ThinkingSwin, convert_state_dict
from tvit_seg.errors import CheckpointError
from tvit_seg.weights.convert import to_authors, to_mmseg
from tvit_seg.weights.stage import extract_stage

STAGES = ((1, 2, 4), (2, 4, 8), (4, 8, 16))


def build(**kwargs):
    options = dict(embed_dims=32, depths=(2, 2, 2), window_size=4)
    model = ThinkingSwin(**{**options, "thinking_stages": STAGES, "num_classes": 10, **kwargs})
    for weight in model.parameters():  # biases and norms too
        torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_ours_to_theirs_and_back(prefix):
    model = build(out_indices=-1)
    theirs = to_authors({prefix + k: v for k, v in model.state_dict().items()})
    assert {"head.fc.weight", "alpha.1", "proj_layer.proj.bias", "proj_layer2.upsample.weight"} < (
        theirs.keys()
    )
    assert not any("recycle" in name or name.startswith("backbone") for name in theirs)
    same(convert_state_dict(theirs), model.state_dict())


def test_norms_of_lower_maps_have_no_place():
    model = build()
    back = convert_state_dict(to_authors(model.state_dict()), model)
    assert back.report.missing == ["norm0.weight", "norm0.bias", "norm1.weight", "norm1.bias"]


def test_theirs_to_ours_and_back(reference):
    theirs = reference("thinkingswin").weights
    same(to_authors(convert_state_dict(theirs)), theirs)


def test_heads_have_no_place():
    weights = {f"backbone.{k}": v for k, v in build().state_dict().items()}
    weights["decode_head.conv_seg.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"no place for decode_head\.conv_seg\.weight"):
        to_authors(weights)


@pytest.mark.parametrize("slicing", ["grouped", "leading"])
@torch.no_grad()
def test_the_first_stage_as_a_timm_model(slicing):
    model = build(slicing=slicing)
    weights, options = extract_stage(model.state_dict(), 0, thinking_stages=STAGES, slicing=slicing)
    assert options["embed_dim"] == 8
    assert options["img_size"] == 64
    plain = SwinTransformer(**options).eval()
    plain.load_state_dict(weights)
    images = torch.randn(3, 3, 64, 64)
    close(plain(images), model.think(images, FixedGate(0)).logits)


@pytest.mark.parametrize("stage", [1, 2])
@torch.no_grad()
def test_a_later_stage_lacks_recycled_tokens_only(stage):
    model = build()
    weights, options = extract_stage(model.state_dict(), stage, thinking_stages=STAGES)
    plain = SwinTransformer(**options).eval()
    plain.load_state_dict(weights)
    images = torch.randn(2, 3, 64, 64)
    gate = FixedGate(stage)
    assert (plain(images) - model.think(images, gate).logits).abs().max() > 1e-3
    for recycle in model.recycle:
        recycle.scale.zero_()
    close(plain(images), model.think(images, gate).logits)


@torch.no_grad()
def test_timms_swin_is_the_first_stage_of_a_wider_one():
    options = dict(img_size=64, depths=(2, 2, 2), window_size=4, num_classes=10)
    theirs = SwinTransformer(embed_dim=16, num_heads=(2, 4, 8), **options).eval()
    stages = ((2, 4, 8), (4, 8, 16))
    model = build(thinking_stages=stages)
    model.load_state_dict(convert_state_dict(theirs.state_dict(), model), strict=False)
    weights, found = extract_stage(model.state_dict(), 0, thinking_stages=stages)
    same(weights, dict(theirs.state_dict()))
    plain = SwinTransformer(**found).eval()
    plain.load_state_dict(weights)
    images = torch.randn(2, 3, 64, 64)
    close(plain(images), theirs(images))
    close(model.think(images, FixedGate(0)).logits, theirs(images))


@pytest.mark.parametrize("slicing", ["grouped", "leading"])
@torch.no_grad()
def test_the_first_stage_as_an_mmseg_model(slicing):
    model = build(slicing=slicing, always_partition=True)
    weights, options = extract_stage(
        model.state_dict(), 0, thinking_stages=STAGES, slicing=slicing, maps=True
    )
    plain = MODELS.build(
        dict(
            type="mmseg.SwinTransformer",
            embed_dims=options["embed_dim"],
            strides=(4, 2, 2),
            out_indices=(0, 1, 2),
            **{key: options[key] for key in ("depths", "num_heads", "window_size")},
        )
    )
    plain.eval()  # returns nothing
    missing, unexpected = plain.load_state_dict(to_mmseg(weights), strict=False)
    assert not unexpected
    assert all(name.endswith("relative_position_index") for name in missing)
    images = torch.randn(2, 3, 64, 64)
    features = model.think(images, FixedGate(0)).features
    for theirs, ours in zip(plain(images), features, strict=True):
        close(theirs, ours[:, : theirs.shape[1]])


def test_bad_input():
    weights = build().state_dict()
    with pytest.raises(ValueError, match=r"stage=3 must lie in \[0, 2\]"):
        extract_stage(weights, 3, thinking_stages=STAGES)
    with pytest.raises(CheckpointError, match="name thinking_stages"):
        extract_stage(weights, 0)
    weights = build(thinking_stages=((2, 2, 4), (2, 4, 8), (4, 8, 16))).state_dict()
    with pytest.raises(CheckpointError, match=r"stage 0 has levels of \[16, 16, 32\] channels"):
        extract_stage(weights, 0, thinking_stages=((2, 2, 4), (2, 4, 8), (4, 8, 16)))
