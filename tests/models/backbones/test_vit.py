"""ThinkingViT: the contract, parity with published outputs, timm and mmseg, and its arguments."""

import pytest
import timm
import torch
from helpers.contracts import BackboneContract, close
from mmseg.registry import MODELS

from tvit_seg import EntropyGate, FixedGate, RandomGate, ThinkingViT, convert_state_dict
from tvit_seg.errors import ConfigError

SMALL = dict(
    img_size=64,
    embed_dims=64,
    num_layers=3,
    num_heads=4,
    thinking_stages=(2, 4),
    num_classes=10,
)


class TestTwoStages(BackboneContract):
    """Two stages, the published kind."""

    def build(self, **kwargs):
        return ThinkingViT(**{**SMALL, **kwargs}).eval()


class TestManyStages(BackboneContract):
    """Four stages, one of them a single head; the widest leaves heads unused."""

    num_stages = 4

    def build(self, **kwargs):
        return ThinkingViT(
            **{**SMALL, "num_heads": 8, "thinking_stages": (1, 2, 4, 7), **kwargs}
        ).eval()


@pytest.mark.parametrize("strict", [True, False])
@torch.no_grad()
def test_reference(reference, strict):
    """Tokens, logits, entropies and exits of the authors' code."""
    expected = reference("thinkingvit_1h-2h")
    backbone = ThinkingViT(
        img_size=48,
        embed_dims=128,
        num_layers=2,
        num_heads=2,
        thinking_stages=(1, 2),
        num_classes=20,
        gate=dict(type="EntropyGate", threshold=float(expected["threshold"]), topk=10),
    ).eval()
    model = None if strict else backbone
    backbone.load_state_dict(convert_state_dict(expected.weights, model))
    for i, output in enumerate(backbone.forward_stages(expected["x"])):
        close(output.tokens, expected[f"tokens{i}"], atol=1e-4)
        close(output.logits, expected[f"logits{i}"], atol=1e-4)
        close(EntropyGate(1.0, topk=10).entropy(output), expected[f"entropy_top10_{i}"], atol=1e-4)
        close(EntropyGate(1.0).entropy(output), expected[f"entropy_{i}"], atol=1e-4)
    thought = backbone.think(expected["x"])
    assert thought.exit_stage.tolist() == expected["exit_stage"].tolist()
    close(thought.logits, expected["gated_logits"], atol=1e-4)


def timm_vit(width, heads, **kwargs):
    return timm.models.vision_transformer.VisionTransformer(
        img_size=64, embed_dim=width, depth=3, num_heads=heads, num_classes=10, **kwargs
    ).eval()


@torch.no_grad()
def test_full_width_equals_timm():
    images = torch.randn(2, 3, 64, 64)
    theirs = timm_vit(64, 4)
    ours = ThinkingViT(**{**SMALL, "thinking_stages": (4,), "out_indices": (0, 1, 2)}).eval()
    ours.load_state_dict(theirs.state_dict())
    thought = ours.think(images)
    close(thought.logits, theirs(images))
    final, maps = theirs.forward_intermediates(images, norm=False)
    for mine, other in zip(thought.features[:2], maps[:2], strict=True):
        close(mine, other)
    close(thought.features[2].flatten(2).transpose(1, 2), final[:, 1:])


@pytest.mark.parametrize("heads", [1, 3])
@torch.no_grad()
def test_first_stage_equals_a_narrow_timm_model(heads):
    """Leading slices hold a whole narrow model: q, k and v are each cut on their own."""
    images = torch.randn(2, 3, 64, 64)
    narrow = timm_vit(16 * heads, heads)
    ours = ThinkingViT(**{**SMALL, "thinking_stages": (heads, 4)}).eval()
    converted = convert_state_dict(narrow.state_dict(), ours)
    assert converted.report.missing == ["recycle.0.scale", "recycle.0.proj.weight",
                                        "recycle.0.proj.bias"]  # fmt: skip
    ours.load_state_dict(converted, strict=False)
    close(ours.think(images, FixedGate(0)).logits, narrow(images))


@torch.no_grad()
def test_full_width_equals_mmseg():
    images = torch.randn(2, 3, 64, 48)
    shared = dict(img_size=64, embed_dims=64, num_layers=3, num_heads=4, out_indices=(1, 2))
    norm_cfg = dict(type="LN", eps=1e-6)
    theirs = MODELS.build(
        dict(type="VisionTransformer", patch_bias=True, norm_cfg=norm_cfg, **shared)
    )
    theirs.init_weights()
    theirs.eval()
    ours = ThinkingViT(**shared, thinking_stages=(4,), final_norm=False).eval()
    converted = convert_state_dict(theirs.state_dict(), ours)
    assert converted.report.source == "mmseg ViT weights"
    ours.load_state_dict(converted, strict=False)
    close(ours(images), theirs(images))
    ours.output_cls_token = theirs.output_cls_token = True
    for mine, other in zip(ours(images), theirs(images), strict=True):
        close(mine, tuple(other))


@torch.no_grad()
def test_class_tokens_stay_with_their_maps():
    """Images that stop at different stages are put back together, class tokens with maps."""
    images = torch.randn(12, 3, 64, 64)
    gate = RandomGate(0.5, seed=0)
    backbone = ThinkingViT(**SMALL, out_indices=(0, 2), output_cls_token=True).eval()
    thought = backbone.think(images, gate)
    assert 0 < thought.exit_stage.sum() < 12
    outputs = backbone.forward_stages(images)
    for i, stage in enumerate(thought.exit_stage.tolist()):
        for (spatial, token), expected in zip(
            thought.features, outputs[stage].features, strict=True
        ):
            close(spatial[i], expected[0][i])
            close(token[i], expected[1][i])
    last = outputs[1].features[-1][1]
    close(last, outputs[1].tokens[:, 0])
    assert (outputs[0].features[-1][1][:, 32:] == 0).all()


@pytest.mark.parametrize("stages", [(2, 3, 6), (3, 12)])
@torch.no_grad()
def test_published_configurations(stages):
    backbone = ThinkingViT(thinking_stages=stages, num_layers=1, num_classes=5).eval()
    assert backbone.embed_dims == 64 * stages[-1]
    outputs = backbone.forward_stages(torch.randn(1, 3, 32, 32))
    assert [out.tokens.shape[-1] for out in outputs] == [64 * h for h in stages]
    assert {out.features[0].shape for out in outputs} == {(1, 64 * stages[-1], 2, 2)}
    assert (outputs[0].features[0][:, 64 * stages[0] :] == 0).all()


def test_frozen_parameters():
    backbone = ThinkingViT(**SMALL, frozen_exclude=["pos_embed"])
    trained = [name for name, p in backbone.named_parameters() if p.requires_grad]
    assert trained == ["pos_embed"]


@pytest.mark.parametrize("name", ["ThinkingViT", "tvit_seg.ThinkingViT"])
def test_registered(name):
    assert isinstance(MODELS.build(dict(type=name, **SMALL)), ThinkingViT)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (dict(thinking_stages=(4, 2)), "thinking_stages"),
        (dict(thinking_stages=(2, 5)), "thinking_stages must be at most num_heads"),
        (dict(embed_dims=66), "embed_dims must be divisible"),
        (dict(with_cls_token=False), "with_cls_token"),
        (dict(out_indices=(1, 3)), "out_indices"),
        (dict(img_size=(1, 2, 3)), "img_size"),
        (dict(img_size=(32, 3)), "img_size"),
        (dict(interpolate_mode="area"), "interpolate_mode"),
        (dict(mlp_ratio=0), "mlp_ratio"),
        (dict(drop_path_rate=1.0), "drop_path_rate"),
        (dict(num_classes=-1), "num_classes"),
        (dict(loss_weights=[1.0]), "loss_weights"),
    ],
)
def test_bad_arguments(arguments, field):
    with pytest.raises(ConfigError, match=field):
        ThinkingViT(**{**SMALL, **arguments})
