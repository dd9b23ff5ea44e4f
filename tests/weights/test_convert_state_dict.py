"""Everybody's weights under our names and in our shapes."""

import pytest
import timm
import torch
from helpers.contracts import close
from mmseg.registry import MODELS

from tvit_seg import ThinkingEncoderDecoder, ThinkingViT, convert_state_dict
from tvit_seg.errors import CheckpointError
from tvit_seg.weights.io import get_state_dict

SMALL = dict(img_size=64, num_layers=2, num_heads=4, embed_dims=64, num_classes=10)


def build(**kwargs):
    return ThinkingViT(**{**SMALL, "thinking_stages": (2, 4), **kwargs}).eval()


def timm_weights(width=64, heads=4, size=64, classes=10, **kwargs):
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=size, embed_dim=width, depth=2, num_heads=heads, num_classes=classes, **kwargs
    )
    return model.state_dict()


def authors_weights(reference, width=128):
    """The reference model's weights, grown to an early release's surplus width and scalars."""
    weights = dict(reference("thinkingvit_1h-2h").weights)
    for i in range(1, 12):
        weights[f"alpha.{i}"] = torch.ones(1)
    return weights


def test_own_weights_pass_unchanged():
    backbone = build()
    converted = convert_state_dict(backbone.state_dict(), backbone)
    assert converted.report.source == "our weights"
    assert not converted.report.missing
    assert not converted.report.dropped
    for name, value in backbone.state_dict().items():
        assert torch.equal(converted[name], value)


def test_smaller_fills_leading_slices():
    narrow, backbone = timm_weights(32, 2), build()
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


@torch.no_grad()
def test_larger_is_cropped_to_the_same_narrow_stage():
    wide = ThinkingViT(
        **{**SMALL, "embed_dims": 128, "num_heads": 8, "thinking_stages": (2, 8)}
    ).eval()
    backbone = build()
    converted = convert_state_dict(wide.state_dict(), backbone)
    assert "pos_embed" in converted.report.cropped
    backbone.load_state_dict(converted)
    images = torch.randn(1, 3, 64, 64)
    close(backbone.forward_stages(images)[0].logits, wide.forward_stages(images)[0].logits)


def test_surplus_scalars_of_early_releases_are_dropped(reference):
    converted = convert_state_dict(authors_weights(reference))
    assert "recycle.0.scale" in converted
    assert "recycle.1.scale" not in converted
    assert "recycle.11.scale" in converted.report.dropped


@torch.no_grad()
def test_position_embedding_is_resized():
    backbone = build(img_size=(32, 96))
    converted = convert_state_dict(timm_weights(size=64), backbone)
    assert converted.report.resized == ["pos_embed"]
    assert converted["pos_embed"].shape == (1, 1 + 2 * 6, 64)


def test_patch_embedding_is_resized():
    converted = convert_state_dict(timm_weights(), build(patch_size=8, img_size=32))
    assert "patch_embed.proj.weight" in converted.report.resized
    assert converted["patch_embed.proj.weight"].shape == (64, 3, 8, 8)


def test_distilled_deit_loses_its_second_token():
    weights = timm_weights()
    weights["dist_token"] = torch.randn(1, 1, 64)
    weights["head_dist.weight"] = torch.randn(10, 64)
    weights["pos_embed"] = torch.randn(1, 18, 64)
    converted = convert_state_dict(weights, build())
    assert converted.report.source == "distilled DeiT weights"
    assert torch.equal(converted["pos_embed"][:, 1:], weights["pos_embed"][:, 2:])
    assert set(converted.report.dropped) == {"dist_token", "head_dist.weight"}


def test_image_head_of_other_classes_is_left_random():
    converted = convert_state_dict(timm_weights(classes=1000), build())
    assert converted.report.dropped == {
        "head.weight": "1000 classes, the model has 10",
        "head.bias": "1000 classes, the model has 10",
    }
    assert "head.weight" in converted.report.missing


@pytest.mark.parametrize("wrap", ["state_dict", "model", None])
@pytest.mark.parametrize("module", ["module.", ""])
def test_wrapped_checkpoints(wrap, module):
    weights = {f"{module}{name}": value for name, value in timm_weights().items()}
    converted = convert_state_dict({wrap: weights} if wrap else weights, build())
    assert len(converted) == len(timm_weights())


def test_prefix():
    weights = {f"teacher.{name}": value for name, value in timm_weights().items()}
    weights["student.norm.weight"] = torch.zeros(1)
    assert set(convert_state_dict(weights, prefix="teacher")) == set(timm_weights())


@pytest.mark.parametrize("kind", ["mask", "linear"])
@torch.no_grad()
def test_authors_segmentation_weights(reference, kind):
    """Tokens, patch logits, pixel entropies, exits and arg-max maps of the authors' code."""
    expected = reference(f"segmenter_{kind}_1h-2h")
    head = dict(in_channels=128, channels=128, num_classes=7, dropout_ratio=0)
    if kind == "mask":
        head.update(type="SegmenterMaskTransformerHead", num_layers=1, num_heads=2, embed_dims=128)
    else:
        head.update(type="FCNHead", num_convs=0, concat_input=False)
    model = ThinkingEncoderDecoder(
        backbone=dict(
            type="ThinkingViT",
            img_size=(48, 48),
            embed_dims=128,
            num_layers=2,
            num_heads=2,
            thinking_stages=(1, 2),
            num_classes=7,
            norm_cfg=dict(type="LN", eps=1e-5),
            interpolate_mode="bilinear",
            gate=dict(type="PixelEntropyGate", threshold=float(expected["threshold"])),
        ),
        decode_head=head,
        test_cfg=dict(mode="whole"),
    ).eval()
    converted = convert_state_dict(expected.weights, model)
    assert converted.report.source == "authors' segmentation weights"
    assert not converted.report.dropped
    model.load_state_dict(converted, strict=True)
    entropies = []
    for i, output in enumerate(model.backbone.forward_stages(expected["x"])):
        close(output.tokens, expected[f"tokens{i}"], atol=1e-4)
        close(model.decode_head(output.features), expected[f"patch_logits{i}"], atol=1e-4)
        entropies.append(expected[f"mean_pixel_entropy{i}"])
    thought = model.think(expected["x"])
    assert thought.exit_stage.tolist() == expected["exit_stage"].tolist()
    for image, entropy in enumerate(thought.entropy):
        for stage in range(int(thought.exit_stage[image]) + 1):
            close(entropy[stage], entropies[stage][image], atol=1e-4)
    maps = thought.seg_logits.argmax(1)
    assert torch.equal(maps, expected["gated_argmax"].long())


def dynamic(reference, **kwargs):
    pruning = dict(type="DynamicPruning", locations=(1, 2, 3))
    options = dict(img_size=64, embed_dims=128, num_layers=4, num_heads=2, mlp_ratio=2.0)
    options.update(thinking_stages=(1, 2), num_classes=20, pruning=pruning)
    backbone = ThinkingViT(**{**options, **kwargs})
    return backbone, convert_state_dict(reference("dynamicvit_1h-2h").weights, backbone)


def test_authors_token_pruning_weights(reference):
    backbone, converted = dynamic(reference)
    assert not converted.report.missing
    assert set(converted.report.dropped) == {f"recycle.{i}.scale" for i in (1, 2, 3)}
    backbone.load_state_dict(converted, strict=True)
    source = reference("dynamicvit_1h-2h").weights["score_predictor.2.out_conv.4.weight"]
    assert torch.equal(backbone.pruning.predictors[2].out_conv[4].weight, source)


def test_score_predictors_do_not_nest(reference):
    """Their first and second halves of channels mean different things."""
    _, converted = dynamic(reference, embed_dims=256, num_heads=4, thinking_stages=(1, 4))
    dropped = converted.report.dropped
    assert dropped["pruning.predictors.0.in_conv.1.weight"].startswith("shape (128, 128)")
    assert "blocks.0.attn.qkv.weight" in converted.report.partial


def test_score_predictors_for_a_backbone_without_pruning(reference):
    _, converted = dynamic(reference, pruning=None)
    assert not converted.report.missing
    assert "pruning.predictors.0.in_conv.1.weight" in converted.report.dropped


def test_segmentation_weights_for_a_backbone(reference):
    weights = reference("segmenter_mask_1h-2h").weights
    backbone = ThinkingViT(
        img_size=48, embed_dims=128, num_layers=2, num_heads=2, thinking_stages=(1, 2),
        num_classes=7,
    )  # fmt: skip
    converted = convert_state_dict(weights, backbone)
    backbone.load_state_dict(converted, strict=True)
    assert all("decode_head" in name for name in converted.report.dropped)


def test_mmseg_segmentor_weights():
    """A Segmenter trained by mmseg: its backbone under our names, its head as it is."""
    shared = dict(img_size=64, embed_dims=64, num_layers=2, num_heads=4)
    head = dict(
        type="FCNHead", num_convs=0, concat_input=False, in_channels=64, channels=64, num_classes=3
    )
    theirs = MODELS.build(
        dict(
            type="EncoderDecoder",
            backbone=dict(type="VisionTransformer", patch_bias=True, final_norm=True, **shared),
            decode_head=head,
        )
    )
    ours = ThinkingEncoderDecoder(
        backbone=dict(type="ThinkingViT", thinking_stages=(4,), **shared), decode_head=head
    )
    converted = convert_state_dict(theirs.state_dict(), ours)
    assert not converted.report.dropped
    ours.load_state_dict(converted, strict=True)


def test_a_position_embedding_that_is_no_square():
    weights = timm_weights()
    weights["pos_embed"] = torch.zeros(1, 1 + 7, 64)
    with pytest.raises(CheckpointError, match="7 patches is not square"):
        convert_state_dict(weights, build())


@torch.no_grad()
def test_layer_scale_of_dino_is_folded():
    weights = timm_weights(init_values=0.1, classes=0)
    for name in list(weights):
        if name.endswith("gamma"):
            weights[name] = torch.rand_like(weights[name])
    teacher = {f"backbone.{name}": value for name, value in weights.items()}
    teacher["head.mlp.0.weight"] = torch.zeros(3, 3)
    backbone = build(num_classes=0, thinking_stages=(4,))
    converted = convert_state_dict(get_state_dict({"teacher": teacher, "epoch": 1}), backbone)
    assert list(converted.report.dropped) == ["head.mlp.0.weight"]
    backbone.load_state_dict(converted)
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=64, embed_dim=64, depth=2, num_heads=4, num_classes=0, init_values=0.1
    ).eval()
    theirs.load_state_dict(weights)
    images = torch.randn(2, 3, 64, 64)
    close(backbone.forward_stages(images)[0].tokens, theirs.forward_features(images))
