"""Networks read off their weights."""

import pytest
import torch
from helpers.builders import VIT, classifier, segmentor
from helpers.sources import timm_swin
from mmseg.registry import MODELS

from tvit_seg import ThinkingSwin, convert_state_dict
from tvit_seg.errors import CheckpointError, ConfigError
from tvit_seg.weights.architecture import read_architecture

KEYS = ("type", "img_size", "patch_size", "embed_dims", "num_layers", "num_heads", "num_classes")
SWIN = dict(
    type="ThinkingSwin",
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


@pytest.mark.parametrize("stages", [(4,), (2, 4), (1, 2, 4)])
def test_our_vit(stages):
    whole = classifier(backbone=dict(thinking_stages=stages))
    for model in (whole, whole.backbone, segmentor(backbone=dict(thinking_stages=stages))):
        found = read_architecture(model.state_dict(), head_dim=8)
        assert found["thinking_stages"] == stages
        assert {key: found[key] for key in KEYS} == {key: VIT[key] for key in KEYS}
        MODELS.build(found)


@pytest.mark.parametrize("name", ["thinkingvit_1h-2h", "dynamicvit_1h-2h", "segmenter_mask_1h-2h"])
def test_references(reference, name):
    weights = convert_state_dict(reference(name).weights)
    found = read_architecture(weights)
    assert found["thinking_stages"] == (1, 2)
    assert found["embed_dims"] == 128
    assert found["mlp_ratio"] == (2 if name.startswith("dynamic") else 4)
    backbone = MODELS.build(found)
    converted = convert_state_dict(reference(name).weights, backbone)
    assert not converted.report.missing
    assert not converted.report.cropped


def test_stages_of_a_network_that_is_too_wide(reference):
    weights = convert_state_dict(reference("thinkingvit_1h-2h").weights)
    assert read_architecture(weights, thinking_stages=(1, 2))["embed_dims"] == 128
    assert read_architecture(weights, 32)["thinking_stages"] == (2, 4)
    with pytest.raises(CheckpointError, match=r"widths \[128, 192\], but .* from widths \[64\]"):
        read_architecture(weights, thinking_stages=(2, 3))
    with pytest.raises(CheckpointError, match="heads of 48 channels"):
        read_architecture(weights, 48)


def test_weights_of_no_vit():
    with pytest.raises(CheckpointError, match=r"not found: patch_embed\.proj\.weight, blocks"):
        read_architecture({"a": torch.zeros(1)})
    weights = classifier().backbone.state_dict()
    with pytest.raises(CheckpointError, match="7 patches is not square"):
        read_architecture({**weights, "pos_embed": torch.zeros(1, 8, 32)}, 8)
    turned = {**weights, "recycle.0.proj.weight": weights["recycle.0.proj.weight"].T}
    with pytest.raises(CheckpointError, match=r"stages of \[32, 16\] channels"):
        read_architecture(turned, 8)
    with pytest.raises(ConfigError, match="thinking_stages must be one number"):
        read_architecture(weights, 8, thinking_stages=((1, 2), (2, 4)))


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_our_swin(prefix):
    weights = {prefix + k: v for k, v in MODELS.build(SWIN).state_dict().items()}
    stages = SWIN["thinking_stages"]
    assert read_architecture(weights, thinking_stages=stages, slicing="leading") == SWIN


def test_reference_of_swin(reference):
    weights = convert_state_dict(reference("thinkingswin").weights)
    stages = ((2, 2), (2, 4))
    found = read_architecture(weights, thinking_stages=stages)
    assert found["slicing"] == "leading"
    assert found["window_size"] == 7
    assert found["num_classes"] == 20
    MODELS.build(found).load_state_dict(weights, strict=True)


def test_a_swin_that_recycles_needs_its_stages(reference):
    weights = convert_state_dict(reference("thinkingswin").weights)
    with pytest.raises(CheckpointError, match=r"name thinking_stages.* have 2 heads at the last"):
        read_architecture(weights)
    with pytest.raises(CheckpointError, match=r"from and to widths \[\(48, 32\)\], the weights .*"):
        read_architecture(weights, thinking_stages=((2, 3), (2, 4)))
    with pytest.raises(ConfigError, match="thinking_stages must"):
        read_architecture(weights, thinking_stages=(3, 6))


def test_swin_of_mmseg():
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


@pytest.mark.parametrize(
    ("kwargs", "absent", "message"),
    [
        ({}, "layers.1.", r"not found: layers\.1\.blocks\.0\.norm1\.weight"),
        (dict(img_size=32), None, "tables of 9, 49 relative positions"),
        (dict(window_size=(4, 3)), None, "table of 35 relative positions is not square"),
    ],
)
def test_other_swins(kwargs, absent, message):
    weights = convert_state_dict(timm_swin(**kwargs).state_dict())
    for name in [name for name in weights if absent and name.startswith(absent)]:
        del weights[name]
    with pytest.raises(CheckpointError, match=message):
        read_architecture(weights)


def test_widths_that_do_not_double():
    weights = timm_swin().state_dict()
    weights["layers.2.blocks.0.norm1.weight"] = torch.zeros(48)
    with pytest.raises(CheckpointError, match=r"levels of \[16, 32, 48\] channels"):
        read_architecture(weights)
