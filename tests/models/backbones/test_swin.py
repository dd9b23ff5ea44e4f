"""ThinkingSwin: the contract, parity with published outputs, timm and mmseg, and its arguments."""

import pytest
import torch
from helpers.contracts import BackboneContract, close
from mmseg.registry import MODELS
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from tvit_seg import EntropyGate, FixedGate, ThinkingSwin, ThinkingViT, convert_state_dict
from tvit_seg.errors import ConfigError
from tvit_seg.models.layers import window_attention
from tvit_seg.models.layers.window_attention import shift_mask
from tvit_seg.weights.architecture import read_architecture

FULL = dict(embed_dims=16, depths=(2, 2), num_heads=(2, 4), window_size=4, drop_path_rate=0.0)
SMALL = dict(**FULL, thinking_stages=((2, 2), (2, 4)), num_classes=10)


class TestTwoStages(BackboneContract):
    """Two stages with the same first level, the published kind."""

    def build(self, **kwargs):
        return ThinkingSwin(**{**SMALL, **kwargs}).eval()


class TestManyStages(BackboneContract):
    """Four stages on three levels, starting with single heads; the widest leaves heads unused."""

    num_stages = 4

    def build(self, **kwargs):
        options = dict(
            depths=(1, 2, 2),
            num_heads=(4, 8, 8),
            thinking_stages=((1, 1, 1), (1, 2, 3), (3, 4, 3), (3, 4, 7)),
        )
        return ThinkingSwin(**{**SMALL, **options, **kwargs}).eval()


@torch.no_grad()
def test_reference(reference):
    """Tokens, logits, entropies and exits of the authors' code."""
    expected = reference("thinkingswin")
    backbone = ThinkingSwin(
        embed_dims=32,
        depths=(2, 2),
        num_heads=(2, 4),
        thinking_stages=((2, 2), (2, 4)),
        num_classes=20,
        slicing="leading",
        gate=dict(type="EntropyGate", threshold=float(expected["threshold"]), topk=10),
    ).eval()
    converted = convert_state_dict(expected.weights, backbone)
    assert converted.report.source == "authors' ThinkingSwin weights"
    assert converted.report.missing == ["norm0.weight", "norm0.bias"]  # of a map they do not have
    assert not converted.report.dropped
    backbone.load_state_dict(converted, strict=False)
    for i, output in enumerate(backbone.forward_stages(expected["x"])):
        close(output.tokens, expected[f"tokens{i}"], atol=1e-4)
        close(output.logits, expected[f"logits{i}"], atol=1e-4)
    first = EntropyGate(1.0, topk=10).entropy(backbone.forward_stages(expected["x"])[0])
    close(first, expected["entropy_top10_0"], atol=1e-4)
    thought = backbone.think(expected["x"])
    assert thought.exit_stage.tolist() == expected["exit_stage"].tolist()
    close(thought.logits, expected["gated_logits"], atol=1e-4)


def timm_swin(size, width=16, **kwargs):
    options = dict(depths=(2, 2, 2), num_heads=(2, 4, 8), window_size=4, num_classes=10)
    return SwinTransformer(img_size=size, embed_dim=width, **{**options, **kwargs}).eval()


# the last level of the first is a single window, of the second less than one in a direction
@pytest.mark.parametrize("size", [(64, 64), (128, 192)])
@pytest.mark.parametrize("slicing", ["grouped", "leading"])
@torch.no_grad()
def test_full_width_equals_timm(size, slicing):
    images = torch.randn(2, 3, *size)
    theirs = timm_swin(size)
    ours = ThinkingSwin(
        **{**FULL, "depths": (2, 2, 2), "num_heads": (2, 4, 8)},
        thinking_stages=((2, 4, 8),),
        num_classes=10,
        slicing=slicing,
    ).eval()
    converted = convert_state_dict(theirs.state_dict(), ours)
    assert all(name.startswith(("norm0", "norm1")) for name in converted.report.missing)
    ours.load_state_dict(converted, strict=False)
    thought = ours.think(images)
    close(thought.logits, theirs(images))
    close(thought.features[-1], theirs.forward_intermediates(images)[0].permute(0, 3, 1, 2))


def three_levels(**kwargs):
    return ThinkingSwin(
        **{**FULL, "depths": (2, 2, 2), "num_heads": (2, 4, 8)},
        thinking_stages=((1, 2, 4), (2, 4, 8)),
        num_classes=10,
        **kwargs,
    ).eval()


@torch.no_grad()
def test_first_stage_equals_a_narrow_timm_model():
    """Grouped slices hold a whole narrow model."""
    images = torch.randn(2, 3, 64, 64)
    narrow = timm_swin(64, width=8, num_heads=(1, 2, 4))
    ours = three_levels()
    ours.load_state_dict(convert_state_dict(narrow.state_dict(), ours), strict=False)
    close(ours.think(images, FixedGate(0)).logits, narrow(images))


@torch.no_grad()
def test_a_leading_first_stage_equals_a_cut_by_hand():
    """The first rows and columns of every layer, after the patch embedding at full width."""
    images = torch.randn(2, 3, 64, 64)
    ours, narrow = three_levels(slicing="leading"), timm_swin(64, width=8, num_heads=(1, 2, 4))
    for name, parameter in ours.named_parameters():
        if name.startswith("patch_embed"):  # else its norm would hardly differ from a narrow one
            parameter.copy_(torch.randn_like(parameter))
    weights = {name.replace("head.", "head.fc."): x for name, x in ours.state_dict().items()}
    for name, parameter in narrow.named_parameters():
        parameter.copy_(weights[name][tuple(map(slice, parameter.shape))])
    narrow.patch_embed = nn.Sequential(ours.patch_embed, ours.patch_embed.norm, FirstChannels(8))
    close(ours.think(images, FixedGate(0)).logits, narrow(images))
    weights = {name: x for name, x in ours.state_dict().items() if "recycle" not in name}
    config = read_architecture(weights, 32, ours.thinking_stages[:1], "leading")
    assert config["embed_dims"] == 16  # a narrower network would normalise fewer channels


@torch.no_grad()
def test_from_weights(tmp_path):
    model = three_levels(slicing="leading")
    torch.save(model.state_dict(), path := tmp_path / "weights.pth")
    options = dict(thinking_stages=model.thinking_stages, slicing="leading")
    again = ThinkingSwin.from_weights(str(path), **options).eval()
    images = torch.randn(2, 3, 64, 64)
    close(again.think(images, FixedGate(0)).logits, model.think(images, FixedGate(0)).logits)
    with pytest.raises(ConfigError, match="kind of weights must be ThinkingViT"):
        ThinkingViT.from_weights(str(path), **options)


class FirstChannels(nn.Module):
    """Cut (..., D) to (..., d)."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def forward(self, x):
        return x[..., : self.count]


def mmseg_pair(levels=2, **kwargs):
    shared = {**FULL, "depths": (2,) * levels, "num_heads": (2, 4, 8)[:levels]}
    options = dict(strides=(4, 2, 2)[:levels], out_indices=tuple(range(levels)))
    theirs = MODELS.build(dict(type="SwinTransformer", **options, **shared))
    theirs.init_weights()
    with torch.no_grad():
        for parameter in theirs.parameters():  # norms too: none may be left out unnoticed
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = ThinkingSwin(**shared, thinking_stages=(shared["num_heads"],), **kwargs)
    converted = convert_state_dict(theirs.state_dict(), ours)
    assert converted.report.source == "mmseg Swin weights"
    assert set(converted.report.dropped.values()) == {"computed, not learned"}
    ours.load_state_dict(converted, strict=True)
    theirs.eval()  # returns nothing
    return theirs, ours.eval()


# multiples of the window; odd grids at all levels
@pytest.mark.parametrize("size", [(64, 96), (50, 90)])
@torch.no_grad()
def test_full_width_equals_mmseg(size):
    theirs, ours = mmseg_pair()
    images = torch.randn(2, 3, *size)
    for mine, other in zip(ours(images), theirs(images), strict=True):
        close(mine, other)


@pytest.mark.parametrize("size", [(37, 50), (5, 9)])
@torch.no_grad()
def test_whole_windows_equal_mmseg_on_small_levels(size):
    theirs, ours = mmseg_pair(levels=3, always_partition=True)
    images = torch.randn(2, 3, *size)
    for mine, other in zip(ours(images), theirs(images), strict=True):
        close(mine, other)


@torch.no_grad()
def test_out_indices_choose_levels():
    images = torch.randn(1, 3, 64, 64)
    every = ThinkingSwin(**SMALL).eval()
    for indices, wanted in (((0,), [0]), (-1, [1]), ((1, 0), [0, 1])):
        some = ThinkingSwin(**SMALL, out_indices=indices).eval()
        missing, _ = some.load_state_dict(every.state_dict(), strict=False)
        assert not missing
        close(some(images), tuple(every(images)[level] for level in wanted))


@torch.no_grad()
def test_shift_masks_are_made_once_for_each_size():
    backbone = ThinkingSwin(**SMALL).eval()
    backbone(torch.randn(1, 3, 48, 80))
    made = dict(window_attention._MASKS)
    assert made
    backbone(torch.randn(3, 3, 48, 80))
    assert window_attention._MASKS.keys() == made.keys()
    assert all(window_attention._MASKS[key] is mask for key, mask in made.items())
    for index in range(40):
        shift_mask((4 + 2 * index, 8), (2, 2), (1, 1), torch.device("cpu"))
    assert len(window_attention._MASKS) == 32


def test_masks_made_in_inference_serve_training():
    window_attention._MASKS.clear()
    backbone = ThinkingSwin(**SMALL)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        backbone.eval()(images)
    backbone.train().forward_stages(images)[1].tokens.sum().backward()


@pytest.mark.parametrize("count", [-1, 0, 1, 2])
def test_frozen_levels(count):
    """As many as mmseg freezes, with the merging that follows them; norm of the last included."""
    backbone = ThinkingSwin(**SMALL, frozen_stages=count).train()
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    parts = {".".join(name.split(".")[: 3 if "downsample" in name else 2]) for name in frozen}
    level = ["layers.0", "norm0.weight", "norm0.bias", "layers.1.downsample"]
    embed = ["patch_embed.proj", "patch_embed.norm"]
    expected = [[], embed, embed + level, embed + level + ["layers.1", "norm.weight", "norm.bias"]]
    assert {p.replace("downsample.norm", "downsample") for p in parts} == set(expected[count + 1])
    assert backbone.layers[1].training == (count < 2)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (dict(thinking_stages=()), "thinking_stages"),
        (dict(thinking_stages=(2, 4)), r"thinking_stages\[0\]"),
        (dict(thinking_stages=((2, 2), (2,))), "one for each of 2 levels"),
        (dict(thinking_stages=((2, 2), (1, 4))), "thinking_stages must be increasing"),
        (dict(thinking_stages=((2, 2), (2, 2))), "thinking_stages must be increasing"),
        (dict(thinking_stages=((2, 2), (2, 5))), r"within num_heads=\(2, 4\)"),
        (dict(num_heads=(2, 4, 8)), "one for each of 2 levels"),
        (dict(num_heads=(2, 5)), "num_heads must be divisors"),
        (dict(depths=(2, 0)), "depths"),
        (dict(strides=(4, 1)), "strides"),
        (dict(slicing="middle"), "slicing"),
        (dict(window_size=0), "window_size"),
        (dict(embed_dims=0), "embed_dims"),
        (dict(frozen_stages=3), "frozen_stages"),
        (dict(use_abs_pos_embed=True), "use_abs_pos_embed"),
    ],
)
def test_bad_arguments(arguments, field):
    with pytest.raises(ConfigError, match=field):
        ThinkingSwin(**{**SMALL, **arguments})


@pytest.mark.parametrize(
    ("num_heads", "expected"),
    [
        (None, ((3, 3, 6, 12), (3, 6, 12, 24))),
        ((4, 8, 16, 32), ((4, 4, 8, 16), (4, 8, 16, 32))),
        ((6, 12, 24), ((6, 6, 12), (6, 12, 24))),
    ],
    ids=["published", "base", "three levels"],
)
def test_stages_by_default(num_heads, expected):
    """A swap of the type alone uses the whole width."""
    swin = ThinkingSwin(num_heads=num_heads, depths=(1,) * len(expected[0]))
    assert swin.thinking_stages == expected
    assert swin.stage_dims[-1] == swin.level_dims


@pytest.mark.integration
def test_predicts_after_an_export():
    """A mask that stood for a tensor while a graph was traced is not kept."""
    swin = ThinkingSwin(embed_dims=16, depths=(2, 2), num_heads=(2, 4), window_size=3).eval()
    images = torch.randn(1, 3, 52, 44)  # a size no other test has

    class Maps(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.swin = swin

        def forward(self, x):
            return self.swin.forward_stages(x)[-1].features

    with torch.no_grad():
        exported = torch.export.export(Maps(), (images,)).module()(images)
        for one, other in zip(swin.forward_stages(images)[-1].features, exported, strict=True):
            assert type(one) is torch.Tensor
            torch.testing.assert_close(one, other)
