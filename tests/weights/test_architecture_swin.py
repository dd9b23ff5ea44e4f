"""Swins read off their weights."""

import pytest
import timm
import torch
from mmseg.registry import MODELS
from timm.models.swin_transformer import SwinTransformer

from tvit_seg import ThinkingSwin, convert_state_dict
from tvit_seg.errors import CheckpointError
from tvit_seg.weights.architecture import read_architecture

SWIN = dict(
    embed_dims=16,
    depths=(1, 2, 1),
    num_heads=(2, 4, 8),
    window_size=4,
    mlp_ratio=2,
    qkv_bias=False,
    patch_size=2,
    in_channels=4,
    thinking_stages=((1, 1, 4), (2, 3, 4), (2, 4, 8)),
    num_classes=10,
    out_indices=(1, 2),
    slicing="leading",
)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_our_own(prefix):
    weights = {prefix + k: v for k, v in ThinkingSwin(**SWIN).state_dict().items()}
    found = read_architecture(
        weights, thinking_stages=SWIN["thinking_stages"], slicing=SWIN["slicing"]
    )
    assert found == dict(type="ThinkingSwin", **SWIN)


def test_reference(reference):
    weights = convert_state_dict(reference("thinkingswin").weights)
    stages = ((2, 2), (2, 4))
    found = read_architecture(weights, thinking_stages=stages)
    assert found["slicing"] == "leading"
    assert found["window_size"] == 7
    assert found["num_classes"] == 20
    MODELS.build(found).load_state_dict(weights, strict=True)


def test_what_recycles_needs_its_stages(reference):
    weights = convert_state_dict(reference("thinkingswin").weights)
    with pytest.raises(CheckpointError, match=r"name thinking_stages.* have 2 heads at the last"):
        read_architecture(weights)
    with pytest.raises(CheckpointError, match=r"from and to widths \[\(48, 32\)\], the weights .*"):
        read_architecture(weights, thinking_stages=((2, 3), (2, 4)))
    with pytest.raises(CheckpointError, match="widths"):
        read_architecture(weights, thinking_stages=((2, 4),))
    with pytest.raises(ValueError, match="has 3 levels, depths has 2"):
        read_architecture(weights, thinking_stages=((1, 2, 4), (2, 4, 8)))
    with pytest.raises(ValueError, match=r"thinking_stages\[0\]=3 must list one integer"):
        read_architecture(weights, thinking_stages=(3, 6))


def test_a_vit_has_one_number_for_each_stage(reference):
    weights = convert_state_dict(reference("thinkingvit_1h-2h").weights)
    with pytest.raises(ValueError, match="a ViT has one number for each stage"):
        read_architecture(weights, thinking_stages=((1, 2), (2, 4)))


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_published_sizes(size):
    with torch.device("meta"):
        theirs = timm.create_model(f"swin_{size}_patch4_window7_224", pretrained=False)
        weights = convert_state_dict(theirs.state_dict())
        found = read_architecture(weights)
        MODELS.build(found).load_state_dict(weights, strict=True)
    heads = (4, 8, 16, 32) if size == "base" else (3, 6, 12, 24)
    assert found["thinking_stages"] == (heads,)
    assert found["depths"] == (2, 2, 6 if size == "tiny" else 18, 2)
    assert found["slicing"] == "grouped"


def test_mmseg():
    options = dict(embed_dims=16, depths=(2, 2), num_heads=(2, 4), window_size=4)
    theirs = MODELS.build(
        dict(type="SwinTransformer", strides=(4, 2), out_indices=(0, 1), **options)
    )
    weights = convert_state_dict(theirs.state_dict())
    found = read_architecture(weights)
    assert found["out_indices"] == (0, 1)
    assert found["num_classes"] == 0
    assert {key: found[key] for key in options} == options
    MODELS.build(found).load_state_dict(weights, strict=True)


def test_as_wide_as_the_last_stage_if_that_is_a_swin():
    weights = ThinkingSwin(num_heads=(4, 8), depths=(1, 1), thinking_stages=((4, 8),)).state_dict()
    cropped = read_architecture(weights, thinking_stages=((3, 3), (3, 6)))
    assert (cropped["embed_dims"], cropped["num_heads"]) == (96, (3, 6))
    whole = read_architecture(weights, thinking_stages=((3, 3), (4, 6)))
    assert (whole["embed_dims"], whole["num_heads"]) == (128, (4, 8))


def plain(**kwargs):
    options = dict(img_size=64, embed_dim=16, depths=(1, 1, 1), num_heads=(2, 4, 8), window_size=4)
    return convert_state_dict(SwinTransformer(**{**options, **kwargs}).state_dict())


@pytest.mark.parametrize(
    ("kwargs", "absent", "message"),
    [
        ({}, "patch_embed.proj.weight", r"not found: patch_embed\.proj\.weight"),
        ({}, "layers.1.blocks.0.norm1.weight", r"not found: layers\.1\.blocks\.0\.norm1\.weight"),
        ({}, "layers.1.", r"found blocks per level: \[1, 0, 1\]"),
        (dict(img_size=32), None, "tables of 9, 49 relative positions"),
        (dict(window_size=(4, 3)), None, "tables of 35 relative positions"),
    ],
)
def test_other_weights(kwargs, absent, message):
    weights = plain(**kwargs)
    for name in [name for name in weights if absent and name.startswith(absent)]:
        del weights[name]
    with pytest.raises(CheckpointError, match=message):
        read_architecture(weights)


def test_widths_that_do_not_double():
    weights = plain()
    weights["layers.2.blocks.0.norm1.weight"] = torch.zeros(48)
    with pytest.raises(CheckpointError, match=r"levels of \[16, 32, 48\] channels"):
        read_architecture(weights)
