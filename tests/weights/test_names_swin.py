"""Swins of other code bases under our names, and ours under theirs."""

import pytest
import timm
import torch
from helpers.sources import SWIN, same, swin, timm_swin
from mmseg.registry import MODELS

from tvit_seg import ThinkingEncoderDecoder, ThinkingSwin, convert_state_dict
from tvit_seg.errors import CheckpointError
from tvit_seg.weights.architecture import read_architecture
from tvit_seg.weights.convert import to_authors


def early_names(weights):
    """Microsoft's layout, and old timm's: merging ends a level, buffers are stored."""
    early = {"layers.0.blocks.1.attn_mask": torch.zeros(4, 16, 16)}
    for name, value in weights.items():
        part = name.split(".")
        if "downsample" in part:
            part[1] = str(int(part[1]) - 1)
        early[".".join(part).replace("head.fc.", "head.")] = value
    early["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16)
    return early


def test_both_layouts_of_timm():
    weights = timm_swin().state_dict()
    early = early_names(weights)
    now = convert_state_dict(weights, swin())
    then = convert_state_dict({"model": early}, swin())
    assert now.report.source == then.report.source == "timm Swin weights"
    assert not now.report.dropped
    assert set(then.report.dropped.values()) == {"computed, not learned"}
    assert now.keys() == then.keys()
    assert all(torch.equal(now[name], then[name]) for name in now)


@pytest.mark.parametrize(("size", "depth", "heads"), [("tiny", 6, 3), ("base", 18, 4)])
def test_published_sizes(size, depth, heads):
    """Every tensor of timm's models finds its place; theirs lack the norms of the lower maps."""
    num_heads = tuple(heads * 2**level for level in range(4))
    with torch.device("meta"):
        theirs = timm.create_model(f"swin_{size}_patch4_window7_224", pretrained=False)
        ours = ThinkingSwin(depths=(2, 2, depth, 2), thinking_stages=(num_heads,), num_classes=1000)
    converted = convert_state_dict(theirs.state_dict(), ours)
    report = converted.report
    assert not report.dropped and not report.resized and not report.partial and not report.cropped
    assert {name.split(".")[0] for name in report.missing} == {"norm0", "norm1", "norm2"}
    found = read_architecture(converted)
    assert (found["thinking_stages"], found["depths"]) == ((num_heads,), (2, 2, depth, 2))


def test_mmseg_segmentor_weights():
    """A UPerNet trained by mmseg: its backbone under our names, its heads as they are."""
    heads = dict(
        decode_head=dict(
            type="UPerHead", in_channels=[16, 32, 64], in_index=[0, 1, 2], channels=8, num_classes=3
        ),
        auxiliary_head=dict(
            type="FCNHead", in_channels=32, in_index=1, channels=8, num_convs=1, num_classes=3
        ),
    )
    levels = dict(strides=(4, 2, 2), out_indices=(0, 1, 2))
    theirs = MODELS.build(
        dict(
            type="EncoderDecoder", backbone=dict(type="SwinTransformer", **levels, **SWIN), **heads
        )
    )
    ours = ThinkingEncoderDecoder(
        backbone=dict(type="ThinkingSwin", thinking_stages=((2, 4, 8),), **SWIN), **heads
    )
    converted = convert_state_dict(theirs.state_dict(), ours)
    assert set(converted.report.dropped.values()) == {"computed, not learned"}
    ours.load_state_dict(converted, strict=True)
    alone = convert_state_dict(theirs.state_dict(), ours.backbone)
    ours.backbone.load_state_dict(alone, strict=True)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_ours_to_the_authors_and_back(prefix):
    stages = ((1, 2, 4), (2, 3, 4), (2, 4, 8))
    model = swin(thinking_stages=stages, out_indices=-1)
    theirs = to_authors({prefix + k: v for k, v in model.state_dict().items()})
    assert {"head.fc.weight", "alpha.1", "proj_layer.proj.bias", "proj_layer2.upsample.weight"} < (
        theirs.keys()
    )
    assert not any("recycle" in name or name.startswith("backbone") for name in theirs)
    same(convert_state_dict(theirs), model.state_dict())


def test_norms_of_lower_maps_have_no_place():
    assert not any(name.startswith("norm0") for name in to_authors(swin().state_dict()))


def test_the_authors_to_ours_and_back(reference):
    theirs = reference("thinkingswin").weights
    same(to_authors(convert_state_dict(theirs)), theirs)


def test_heads_have_no_place():
    weights = {f"backbone.{k}": v for k, v in swin().state_dict().items()}
    weights["decode_head.conv_seg.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"no place for decode_head\.conv_seg\.weight"):
        to_authors(weights)
