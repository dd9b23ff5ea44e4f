"""ViTs of other code bases under our names, and ours under theirs."""

import pytest
import torch
from helpers.builders import LINEAR, MASK, classifier, segmentor
from helpers.contracts import close
from helpers.sources import same, timm_vit, vit
from mmseg.registry import MODELS

from tvit_seg import ThinkingEncoderDecoder, ThinkingViT, convert_state_dict
from tvit_seg.errors import CheckpointError
from tvit_seg.weights.convert import to_authors
from tvit_seg.weights.io import get_state_dict

REFERENCES = [
    "thinkingvit_1h-2h",
    "dynamicvit_1h-2h",
    "segmenter_linear_1h-2h",
    "segmenter_mask_1h-2h",
]


def test_surplus_scalars_of_early_releases_are_dropped(reference):
    weights = reference("thinkingvit_1h-2h").weights
    weights |= {f"alpha.{i}": torch.ones(1) for i in range(1, 12)}
    converted = convert_state_dict(weights)
    assert "recycle.0.scale" in converted
    assert "recycle.1.scale" not in converted
    assert "recycle.11.scale" in converted.report.dropped


def test_a_distillation_token_is_a_register():
    weights = timm_vit().state_dict()
    weights["dist_token"] = torch.randn(1, 1, 64)
    weights["head_dist.weight"] = torch.randn(10, 64)
    weights["pos_embed"] = torch.randn(1, 18, 64)
    converted = convert_state_dict(weights)
    assert converted.report.source == "distilled DeiT weights"
    assert torch.equal(converted["pos_embed"][:, 1:], weights["pos_embed"][:, 2:])
    expected = weights["dist_token"] + weights["pos_embed"][:, 1:2]
    assert torch.equal(converted["reg_token"], expected)
    with pytest.raises(CheckpointError, match="dist_token"):
        convert_state_dict(weights, vit())


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


@torch.no_grad()
def test_layer_scale_of_dino_is_folded():
    weights = timm_vit(init_values=0.1, num_classes=0).state_dict()
    for name in list(weights):
        if name.endswith("gamma"):
            weights[name] = torch.rand_like(weights[name])
    teacher = {f"backbone.{name}": value for name, value in weights.items()}
    teacher["head.mlp.0.weight"] = torch.zeros(3, 3)
    backbone = vit(num_classes=0, thinking_stages=(4,))
    converted = convert_state_dict(get_state_dict({"teacher": teacher, "epoch": 1}), backbone)
    assert list(converted.report.dropped) == ["head.mlp.0.weight"]
    backbone.load_state_dict(converted)
    theirs = timm_vit(init_values=0.1, num_classes=0)
    theirs.load_state_dict(weights)
    images = torch.randn(2, 3, 64, 64)
    close(backbone.forward_stages(images)[0].tokens, theirs.forward_features(images))


@pytest.mark.parametrize("stages", [(1, 2, 4)])
@pytest.mark.parametrize("head", [None, LINEAR, MASK], ids=["classifier", "linear", "mask"])
def test_ours_to_the_authors_and_back(stages, head):
    backbone = dict(thinking_stages=stages)
    model = segmentor(head=head, backbone=backbone) if head else classifier(backbone=backbone)
    theirs = to_authors(model.state_dict())
    assert not any("recycle" in name or name.startswith("backbone") for name in theirs)
    same(convert_state_dict(theirs, model), model.state_dict())
    if head is None:  # as their model declares it
        assert theirs["proj_layer.weight"].shape == (32, 8 * stages[0])


@pytest.mark.parametrize("name", REFERENCES)
def test_the_authors_to_ours_and_back(reference, name):
    theirs = reference(name).weights
    back = to_authors(convert_state_dict(theirs))
    used = {k: v for k, v in theirs.items() if k in back}
    assert set(theirs) - set(used) <= {"alpha.1", "alpha.2", "alpha.3"}  # scalars of no stage
    same(back, used)


def test_other_heads_have_no_place():
    weights = {"decode_head.convs.0.weight": torch.zeros(1)}
    weights |= {f"backbone.{k}": v for k, v in classifier().backbone.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"no place for decode_head\.convs\.0\.weight"):
        to_authors(weights)
