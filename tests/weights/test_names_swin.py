"""Everybody's Swin weights under our names and in our shapes."""

import pytest
import timm
import torch
from helpers.contracts import close
from mmseg.registry import MODELS
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn

from tvit_seg import ThinkingEncoderDecoder, ThinkingSwin, convert_state_dict
from tvit_seg.errors import CheckpointError
from tvit_seg.weights.convert import to_authors
from tvit_seg.weights.load import load_pretrained

FULL = dict(embed_dims=16, depths=(2, 2, 2), num_heads=(2, 4, 8), window_size=4)


def build(**kwargs):
    options = dict(thinking_stages=((1, 2, 4), (2, 4, 8)), num_classes=10)
    return ThinkingSwin(**{**FULL, **options, **kwargs}).eval()


def timm_model(width=16, heads=(2, 4, 8), **kwargs):
    options = dict(img_size=64, depths=(2, 2, 2), window_size=4, num_classes=10)
    options.update(embed_dim=width, num_heads=heads, **kwargs)
    return SwinTransformer(**options).eval()


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


def test_own_weights_pass_unchanged():
    backbone = build()
    converted = convert_state_dict(backbone.state_dict(), backbone)
    assert converted.report.source == "our weights"
    assert not converted.report.missing
    assert not converted.report.dropped
    for name, value in backbone.state_dict().items():
        assert torch.equal(converted[name], value)


@pytest.mark.parametrize("wrap", ["model", None])
def test_both_layouts_of_timm(wrap):
    weights = timm_model().state_dict()
    early = early_names(weights)
    now = convert_state_dict(weights, build())
    then = convert_state_dict({wrap: early} if wrap else early, build())
    assert now.report.source == then.report.source == "timm Swin weights"
    assert not now.report.dropped
    assert set(then.report.dropped.values()) == {"computed, not learned"}
    assert now.keys() == then.keys()
    assert all(torch.equal(now[name], then[name]) for name in now)


@pytest.mark.parametrize(
    ("size", "depth", "heads"), [("tiny", 6, 3), ("small", 18, 3), ("base", 18, 4)]
)
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
            type="EncoderDecoder", backbone=dict(type="SwinTransformer", **levels, **FULL), **heads
        )
    )
    ours = ThinkingEncoderDecoder(
        backbone=dict(type="ThinkingSwin", thinking_stages=((2, 4, 8),), **FULL), **heads
    )
    converted = convert_state_dict(theirs.state_dict(), ours)
    assert set(converted.report.dropped.values()) == {"computed, not learned"}
    ours.load_state_dict(converted, strict=True)
    alone = convert_state_dict(theirs.state_dict(), ours.backbone)
    ours.backbone.load_state_dict(alone, strict=True)


@pytest.mark.parametrize("slicing", ["grouped", "leading"])
@torch.no_grad()
def test_larger_is_cropped_to_the_same_narrow_stage(slicing):
    wide = build(
        embed_dims=32, num_heads=(4, 8, 16), thinking_stages=((1, 2, 4), (4, 8, 16)),
        slicing=slicing,
    )  # fmt: skip
    backbone = build(slicing=slicing)
    converted = convert_state_dict(wide.state_dict(), backbone)
    assert "layers.1.downsample.reduction.weight" in converted.report.cropped
    assert not converted.report.dropped
    backbone.load_state_dict(converted)
    images = torch.randn(1, 3, 64, 64)
    close(backbone.forward_stages(images)[0].logits, wide.forward_stages(images)[0].logits)


def test_authors_names_of_more_stages():
    weights = timm_model().state_dict()
    weights.update({f"alpha.{i}": torch.ones(1) for i in range(3)})
    for suffix, width in (("", 32), ("2", 48)):
        weights[f"proj_layer{suffix}.upsample.weight"] = torch.randn(width, 1, 4, 4)
        weights[f"proj_layer{suffix}.proj.weight"] = torch.randn(16, width, 1, 1)
        weights[f"proj_layer{suffix}.proj.bias"] = torch.randn(16)
    backbone = build(thinking_stages=((2, 4, 4), (2, 4, 6), (2, 4, 8)))
    converted = convert_state_dict(weights, backbone)
    assert converted.report.source == "authors' ThinkingSwin weights"
    assert converted.report.dropped == {
        "recycle.2.scale": "a recycling scalar without its projection"
    }
    assert torch.equal(converted["recycle.1.proj.bias"], weights["proj_layer2.proj.bias"])
    upsample = weights["proj_layer.upsample.weight"]
    assert torch.equal(converted["recycle.0.upsample.weight"], upsample)
    assert {name[:6] for name in converted.report.missing} == {"norm0.", "norm1."}


@torch.no_grad()
def test_tables_are_resized_for_another_window():
    """As timm does; a bias that rises with the offset still does."""
    weights = timm_model().state_dict()
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    offsets = torch.meshgrid(torch.arange(-3.0, 4), torch.arange(-3.0, 4), indexing="ij")
    weights[name] = torch.stack(offsets, dim=-1).flatten(0, 1)
    backbone = build(window_size=7)
    converted = convert_state_dict(weights, backbone)
    tables = [name for name in weights if name.endswith("bias_table")]
    assert sorted(converted.report.resized) == sorted(tables)
    expected = checkpoint_filter_fn(weights, timm_model(img_size=224, window_size=7))
    assert all(torch.equal(converted[name], expected[name]) for name in tables)
    rows = converted[name].unflatten(0, (13, 13))[:, 6, 0]
    assert (rows.diff() > -1e-5).all()
    assert (rows[4:9].diff() > 0.5).all()
    backbone.load_state_dict(converted, strict=False)
    assert torch.isfinite(backbone(torch.randn(1, 3, 64, 64))[-1]).all()


def test_a_table_that_is_no_square():
    weights = timm_model().state_dict()
    weights["layers.0.blocks.0.attn.relative_position_bias_table"] = torch.zeros(7 * 5, 2)
    with pytest.raises(CheckpointError, match="table of 35 relative positions is not square"):
        convert_state_dict(weights, build())


def test_image_head_of_other_classes_is_left_random():
    converted = convert_state_dict(timm_model(num_classes=1000).state_dict(), build())
    assert converted.report.dropped["head.weight"] == "1000 classes, the model has 10"


def test_init_cfg_loads_a_file(tmp_path):
    path = tmp_path / "swin.pth"
    weights = timm_model().state_dict()
    weights["norm.weight"] += 1
    torch.save({"model": early_names(weights)}, path)
    backbone = build(init_cfg=dict(type="Pretrained", checkpoint=str(path)))
    backbone.init_weights()
    assert "timm Swin weights" in str(load_pretrained(backbone, str(path)))
    assert torch.equal(backbone.norm.weight, weights["norm.weight"])


def test_second_version_is_refused():
    with torch.device("meta"):
        weights = timm.create_model("swinv2_tiny_window8_256", pretrained=False).state_dict()
    with pytest.raises(CheckpointError, match="unknown kind"):
        convert_state_dict(weights, build())


def test_a_vit_does_not_take_swin_weights(tmp_path):
    path = tmp_path / "swin.pth"
    torch.save(timm_model().state_dict(), path)
    vit = MODELS.build(dict(type="ThinkingViT", num_layers=2, embed_dims=32, thinking_stages=(1,)))
    with pytest.raises(CheckpointError, match="less than half"):
        load_pretrained(vit, str(path))


@pytest.mark.parametrize("slicing", ["grouped", "leading"])
def test_the_authors_slicing_is_asked_for(tmp_path, slicing, monkeypatch):
    model = build()
    torch.save(to_authors(model.state_dict()), tmp_path / "authors.pth")
    said = []
    monkeypatch.setattr("tvit_seg.weights.load.print_log", lambda text, **_: said.append(text))
    load_pretrained(build(slicing=slicing), str(tmp_path / "authors.pth"))
    warned = any("needs slicing='leading'" in text for text in said)
    assert warned == (slicing == "grouped")


@pytest.mark.parametrize("recorded", ["grouped", "leading"])
@pytest.mark.parametrize("slicing", ["grouped", "leading"])
def test_a_recorded_slicing_is_asked_for(tmp_path, slicing, recorded, monkeypatch):
    meta = dict(backbone=dict(slicing=recorded))
    torch.save(dict(meta=meta, state_dict=build().state_dict()), tmp_path / "ours.pth")
    said = []
    monkeypatch.setattr("tvit_seg.weights.load.print_log", lambda text, **_: said.append(text))
    load_pretrained(build(slicing=slicing), str(tmp_path / "ours.pth"))
    warned = any(f"needs slicing={recorded!r}" in text for text in said)
    assert warned == (slicing != recorded)
