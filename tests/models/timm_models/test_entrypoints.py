"""timm's registry has the published models, as they were published."""

import pytest
import timm
import torch
from timm.data import resolve_model_data_config

from tvit_seg import stage_macs
from tvit_seg.models.backbones.arch import ARCHS

VITS = {
    "thinkingvit_2h_3h": (2, 3),
    "thinkingvit_2h_3h_6h": (2, 3, 6),
    "thinkingvit_2h_6h": (2, 6),
    "thinkingvit_3h_6h": (3, 6),
    "thinkingvit_3h_6h_12h": (3, 6, 12),
    "thinkingvit_3h_9h": (3, 9),
    "thinkingvit_3h_12h": (3, 12),
}
SWINS = {
    "thinkingswin_tiny": ((2, 2, 6, 2), 96),
    "thinkingswin_small": ((2, 2, 18, 2), 96),
    "thinkingswin_base": ((2, 2, 18, 2), 128),
}


def on_meta(name, **kwargs):
    return timm.create_model(name, device="meta", dtype=torch.float32, **kwargs)


def test_all_are_registered():
    presets = {f"thinkingvit_{arch}" for arch in ARCHS}
    assert set(timm.list_models("thinking*")) == {*VITS, *SWINS, *presets}
    assert not timm.list_models("thinking*", pretrained=True)


@pytest.mark.parametrize("name", ["thinkingvit_2h_3h_6h", "thinkingvit_3h_12h"])
def test_vits(name):
    model = on_meta(name)
    assert model.thinking_stages == VITS[name]
    assert model.embed_dim == 64 * VITS[name][-1]
    assert model.get_classifier().out_features == 1000
    assert {p.device.type for p in model.parameters()} == {"meta"}


@pytest.mark.parametrize("arch", ARCHS)
def test_presets(arch):
    model = on_meta(f"thinkingvit_{arch}", depth=1)
    assert model.thinking_stages == ARCHS[arch]["thinking_stages"]
    assert model.embed_dim == ARCHS[arch]["embed_dims"]
    assert model.num_prefix_tokens == 1 + ARCHS[arch].get("reg_tokens", 0)
    assert model.patch_embed.patch_size[0] == ARCHS[arch].get("patch_size", 16)
    size = resolve_model_data_config(model)["input_size"]
    assert (
        len(model.patch_embed(torch.empty(1, *size, device="meta"))[0])
        == model.patch_embed.num_patches
    )


@pytest.mark.parametrize(("name", "shape"), SWINS.items())
def test_swins(name, shape):
    model = on_meta(name)
    depths, width = shape
    assert tuple(len(layer.blocks) for layer in model.layers) == depths
    assert model.embed_dim == width
    assert model.stage_dims[0][-1] * 2 == model.stage_dims[1][-1] == 8 * width
    assert model.stage_dims[1] == model.level_dims


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "gmacs"), [("thinkingvit_3h_6h", (1.25, 5.85)), ("thinkingswin_small", (2.82, 11.68))]
)
def test_published_cost(name, gmacs):
    macs = stage_macs(on_meta(name), (224, 224))
    assert [m / 1e9 for m in macs] == pytest.approx(gmacs, rel=0.015)


def test_data_config():
    model = on_meta("thinkingvit_3h_6h")
    config = resolve_model_data_config(model)
    assert config["input_size"] == (3, 224, 224)
    assert resolve_model_data_config(model, dict(img_size=64))["input_size"] == (3, 64, 64)
    assert (config["interpolation"], config["crop_pct"]) == ("bicubic", 0.875)
    assert model.default_cfg["classifier"] == "head"


def test_nothing_is_downloaded():
    with pytest.raises(ValueError, match=r"pretrained=True.*checkpoints/README.md"):
        timm.create_model("thinkingvit_3h_6h", pretrained=True)


def test_a_missing_file():
    overlay = dict(file="nowhere.pth")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth does not exist"):
        timm.create_model(
            "thinkingvit_2h_3h", pretrained=True, pretrained_cfg_overlay=overlay, depth=1
        )
