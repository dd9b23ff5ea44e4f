"""Cost: counted on the model, against published figures and against paper and pencil."""

import pytest
import timm
import torch

from tvit_seg import (
    PixelEntropyGate,
    ThinkingEncoderDecoder,
    ThinkingSwin,
    ThinkingViT,
    stage_macs,
    stage_parameters,
)

LINEAR = dict(
    type="FCNHead", num_convs=0, concat_input=False, in_channels=384, channels=384, num_classes=150
)


def segmentor(**backbone):
    return ThinkingEncoderDecoder(
        backbone=dict(type="ThinkingViT", thinking_stages=(3, 6), num_classes=150, **backbone),
        decode_head=LINEAR,
        test_cfg=dict(mode="whole"),
    )


def gmacs(model, size):
    return [macs / 1e9 for macs in stage_macs(model, (size, size))]


def test_published_classifier_figures():
    model = ThinkingViT(thinking_stages=(3, 6), num_classes=1000)
    assert gmacs(model, 224) == pytest.approx([1.25, 5.85], rel=0.01)


@pytest.mark.integration
def test_published_swin_figures():
    with torch.device("meta"):
        model = ThinkingSwin(depths=(2, 2, 18, 2), num_classes=1000)
    assert gmacs(model, 224) == pytest.approx([2.82, 11.68], rel=0.01)


@pytest.mark.parametrize(("size", "expected"), [(512, [10.4, 42.2]), (1024, [100, 343])])
def test_published_segmentation_figures(size, expected):
    assert gmacs(segmentor(), size) == pytest.approx(expected, rel=0.01)


def analytic(width, layers, tokens, new_width):
    """MACs of one stage: blocks, and the patches of the channels it adds."""
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    return layers * block + (tokens - 1) * 16 * 16 * 3 * new_width


@pytest.mark.parametrize("size", [(64, 64), (96, 33)])
def test_against_a_formula(size):
    model = ThinkingViT(embed_dims=64, num_heads=4, num_layers=3, thinking_stages=(1, 2, 4))
    tokens = 1 + -(-size[0] // 16) * -(-size[1] // 16)
    widths, expected, total = (16, 32, 64), [], 0
    for previous, width in zip((0, *widths), widths, strict=False):
        total += analytic(width, 3, tokens, width - previous) + tokens * previous * width
        expected.append(total)
    assert stage_macs(model, size) == pytest.approx(expected, rel=1e-9)


def test_swin_against_a_formula():
    """Levels of 16 x 24 and 8 x 12 tokens in windows of 4 x 4; both stages have both levels."""
    model = ThinkingSwin(
        embed_dims=16, depths=(2, 1), num_heads=(2, 4), window_size=4,
        thinking_stages=((1, 2), (2, 3)), num_classes=5,
    )  # fmt: skip
    tokens, expected, total = (16 * 24, 8 * 12), [], 0
    for (first, last), new in zip(((8, 16), (16, 24)), (8, 8), strict=True):
        total += tokens[0] * 4 * 4 * 3 * new  # patches
        for count, depth, width in zip(tokens, (2, 1), (first, last), strict=True):
            total += depth * count * (12 * width**2 + 2 * 4 * 4 * width)
        total += tokens[1] * 4 * first * last + last * 5  # merging, classes
        if expected:
            total += tokens[0] * 16 * (1 + first)  # recycling from 16 channels
        expected.append(total)
    assert stage_macs(model, (64, 96)) == pytest.approx(expected, rel=1e-9)


def test_published_cost_of_token_pruning():
    pruning = dict(type="DynamicPruning", keep_ratio=0.8)
    model = ThinkingViT(thinking_stages=(3, 6), num_classes=1000, pruning=pruning)
    assert gmacs(model, 224) == pytest.approx([1.25, 4.65], rel=0.01)


def test_token_pruning_against_a_formula():
    pruning = dict(type="DynamicPruning", keep_ratio=0.5, locations=(1, 2))
    model = ThinkingViT(
        embed_dims=64, num_heads=4, num_layers=3, thinking_stages=(1, 4), pruning=pruning
    )
    first, second = stage_macs(model, (64, 64))
    blocks = sum(analytic(64, 1, 1 + left, 0) for left in (16, 8, 4))
    # of 64 channels: 64 -> 64, its own half -> 32, -> 16, -> 2; the mean's half once
    scores = sum(left * (64**2 + 32 * 32 + 32 * 16 + 16 * 2) + 32 * 32 for left in (16, 8))
    expected = first + blocks + scores + 16 * 16 * 16 * 3 * 48 + 17 * 16 * 64
    assert second == pytest.approx(expected, rel=1e-9)


def test_decode_head_counts_once_for_the_class_token_and_every_stage_for_pixels():
    model = segmentor(num_layers=1)
    head = 32 * 32 * 384 * 150 / 1e9
    backbone, once = gmacs(model.backbone, 512), gmacs(model, 512)
    assert [b - a for a, b in zip(backbone, once, strict=True)] == pytest.approx([head] * 2)
    for resolution in ("input", "token"):
        gate = PixelEntropyGate(1.0, resolution)
        model.backbone.set_gate(gate, has_decode_head=True)
        always = [b - a for a, b in zip(backbone, gmacs(model, 512), strict=True)]
        assert always == pytest.approx([head, 2 * head])


def test_the_model_is_left_as_it_was():
    model = segmentor(num_layers=1).train()
    model.backbone.blocks.eval()  # a part may be frozen
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stage_macs(model, (64, 64))
    assert model.training
    assert not any(module.training for module in model.backbone.blocks.modules())
    for name, value in model.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, before[name])


def test_parameters_of_a_stage_are_those_of_timms_model_of_that_width():
    model = ThinkingViT(thinking_stages=(3, 6), num_classes=1000)
    tiny = timm.create_model("deit_tiny_patch16_224")
    found = stage_parameters(model, (224, 224))
    assert found == [parameters(tiny), parameters(model)]
    assert found[1] == pytest.approx(22.0e6, rel=0.01)  # published


def test_parameters_at_any_size_and_with_a_decode_head():
    model = segmentor(num_layers=1)
    backbone, whole = (stage_parameters(m, (70, 64)) for m in (model.backbone, model))
    head = parameters(model.decode_head)
    assert [b - a for a, b in zip(backbone, whole, strict=True)] == [head] * 2
    assert whole[-1] == parameters(model)


def parameters(model):
    return sum(x.numel() for x in model.parameters())
