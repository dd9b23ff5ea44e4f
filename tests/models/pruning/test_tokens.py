"""Tokens are dropped, and come back at their places."""

import pytest
import torch
from helpers.contracts import close
from torch import nn

from tvit_seg import FixedGate, ThinkingViT
from tvit_seg.models.pruning import tokens as tokens_module
from tvit_seg.models.pruning.functional import top_tokens

SMALL = dict(
    img_size=32, patch_size=4, embed_dims=32, num_layers=5, num_heads=4, thinking_stages=(2, 4),
    num_classes=5,
)  # fmt: skip


def build(restore="recycled", keep_ratio=0.7, locations=(1, 2, 4), stage=-1, **kwargs):
    pruning = dict(
        type="DynamicPruning",
        locations=locations,
        keep_ratio=keep_ratio,
        stage=stage,
        restore=restore,
    )
    backbone = ThinkingViT(**{**SMALL, **kwargs}, pruning=pruning).eval()
    with torch.no_grad():
        for recycle in backbone.recycle:
            recycle.scale.fill_(0.7)
    return backbone


class Identity(nn.Module):
    """A block that leaves its tokens, and writes down how many there are."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, x, mask=None, rope=None):
        self.seen.append(x.shape[1])
        return x


@pytest.mark.parametrize("size", [(32, 32), (17, 30)])
@torch.no_grad()
def test_position_coded_tokens_stay_at_their_places(size):
    """Blocks that change nothing: pruned and put back must give what went in."""
    backbone, seen = build("latest", thinking_stages=(4,), out_indices=(0, 1, 3, 4)), []
    backbone.blocks = nn.ModuleList(Identity(seen) for _ in range(5))
    backbone.norm = nn.Identity()
    images = torch.randn(3, 3, *size)
    coded = backbone.embed(images, 0)
    coded[..., 0] = torch.arange(coded.shape[1])
    output = backbone.run_stage(0, coded, None, size)
    count = coded.shape[1] - 1
    left = [int(count * 0.7**k) for k in (0, 1, 2, 3)]
    assert seen == [1 + left[k] for k in (0, 1, 2, 2, 3)]
    assert torch.equal(output.tokens, coded)
    for layer in output.features:
        assert torch.equal(layer.flatten(2).transpose(1, 2), coded[:, 1:])
    assert output.keep_mask.sum((2, 3)).tolist() == [left[1:]] * 3


@torch.no_grad()
def test_recycled_tokens_stand_where_tokens_were_pruned():
    backbone = build("recycled")
    first, second = backbone.forward_stages(torch.randn(3, 3, 32, 32))
    kept = second.keep_mask[:, -1:].bool().expand_as(second.features[0])
    assert not kept.all()
    assert torch.equal(second.features[0][~kept], first.features[0][~kept])
    assert not torch.isclose(second.features[0][kept], first.features[0][kept]).all()


@torch.no_grad()
def test_maps_before_the_final_norm_get_the_latest():
    """They know nothing of how the previous stage's output was normalised."""
    maps = []
    for restore in ("latest", "recycled"):
        torch.manual_seed(0)
        backbone = build(restore, out_indices=(1, 3, 4))
        torch.manual_seed(1)
        maps.append(backbone.forward_stages(torch.randn(2, 3, 32, 32))[1].features)
    for i, (latest, recycled) in enumerate(zip(*maps, strict=True)):
        assert torch.equal(latest, recycled) == (i < 2)


@torch.no_grad()
def test_the_latest_representation_passes_the_final_norm():
    """A token pruned before the first block is the normalised input of the stage."""
    backbone = build("latest", locations=(0,), out_origin=True, num_classes=0)
    output = backbone.forward_stages(torch.randn(2, 3, 32, 32))[1]
    origin, final = (x.flatten(2).transpose(1, 2) for x in output.features)
    pruned = output.keep_mask[:, 0].flatten(1) == 0
    close(final[pruned], backbone.norm(origin)[pruned])


@pytest.mark.parametrize("restore", ["latest", "recycled"])
@pytest.mark.parametrize("final_norm", [True, False])
@torch.no_grad()
def test_training_computes_what_inference_does(monkeypatch, restore, final_norm):
    """With the same decisions, masked tokens and dropped tokens give the same maps."""
    backbone = build(restore, final_norm=final_norm, out_indices=(1, 3, 4))
    images = torch.randn(2, 3, 32, 32)
    hard = backbone.forward_stages(images)[1]
    wanted = iter(hard.keep_mask.unbind(1))

    def decide(scores):
        decision = next(wanted).flatten(1)
        best = top_tokens(scores[..., 0].where(policy[-1] > 0, -torch.inf), int(decision[0].sum()))
        policy.append(torch.zeros_like(decision).scatter(1, best, 1.0))
        return policy[-1][..., None]

    policy = [torch.ones(2, 64)]
    monkeypatch.setattr(tokens_module, "hard_decision", decide)
    backbone.train()
    soft = backbone.forward_stages(images)[1]
    assert torch.equal(soft.keep_mask, hard.keep_mask)
    close(soft.tokens, hard.tokens, atol=1e-4)
    close(soft.logits, hard.logits, atol=1e-4)
    for a, b in zip(soft.features, hard.features, strict=True):
        close(a, b, atol=1e-4)


def test_training_keeps_all_tokens_and_reaches_the_predictors():
    backbone = build().train()
    output = backbone.forward_stages(torch.randn(2, 3, 32, 32))[1]
    assert output.tokens.shape == (2, 65, 32)
    output.logits.sum().backward()
    for predictor in backbone.pruning.predictors:
        assert all(p.grad.abs().sum() > 0 for p in predictor.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpointed_equals_plain(dtype):
    images = torch.randn(2, 3, 32, 32)
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(3)
        backbone = build(with_cp=with_cp).train()
        torch.manual_seed(4)  # the same decisions
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is torch.bfloat16):
            output = backbone.forward_stages(images)[1]
        output.tokens.float().square().sum().backward()
        gradients.append([p.grad for p in backbone.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        assert torch.isfinite(a).all()
        close(a, b, atol=1e-4)


@torch.no_grad()
def test_a_stage_in_the_middle_hands_on_all_tokens():
    backbone = build(stage=1, thinking_stages=(1, 2, 4))
    outputs = backbone.forward_stages(torch.randn(2, 3, 32, 32))
    assert [out.keep_mask is None for out in outputs] == [True, False, True]
    assert [out.tokens.shape[1] for out in outputs] == [65] * 3
    thought = backbone.think(torch.randn(2, 3, 32, 32), FixedGate(2))
    assert not thought.keep_mask.isnan().any()
