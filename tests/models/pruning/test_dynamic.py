"""DynamicPruning on ThinkingViT: the contract, published outputs, arguments."""

import copy

import pytest
import torch
from helpers.contracts import BackboneContract, close

from tvit_seg import DynamicPruning, EntropyGate, ThinkingViT, convert_state_dict
from tvit_seg.errors import ConfigError
from tvit_seg.models.pruning import build_pruning
from tvit_seg.models.pruning.functional import attention_mask

SMALL = dict(
    img_size=32,
    patch_size=4,
    embed_dims=64,
    num_layers=4,
    num_heads=4,
    thinking_stages=(2, 4),
    num_classes=10,
)
PRUNING = dict(type="DynamicPruning", locations=(1, 2, 3), keep_ratio=0.7)


def build(pruning=PRUNING, **kwargs):
    return ThinkingViT(**{**SMALL, **kwargs}, pruning=pruning).eval()


class TestPruned(BackboneContract):
    """The contract with pruning."""

    def build(self, **kwargs):
        return build(**kwargs)

    # decisions of training are random; test_tokens.py checkpoints with a seed
    test_checkpointed_equals_plain = test_drop_in_estimates_the_joint_loss = None


class TestPrunedLatest(TestPruned):
    """The contract with the other value for pruned tokens."""

    def build(self, **kwargs):
        return build(dict(PRUNING, restore="latest"), **kwargs)


def reference_backbone(expected, keep_ratio=0.8):
    backbone = ThinkingViT(
        img_size=64,
        embed_dims=128,
        num_layers=4,
        num_heads=2,
        mlp_ratio=2.0,
        thinking_stages=(1, 2),
        num_classes=20,
        gate=dict(type="EntropyGate", threshold=float(expected["threshold"])),
        pruning=dict(PRUNING, keep_ratio=keep_ratio),
    ).eval()
    backbone.load_state_dict(convert_state_dict(expected.weights))
    return backbone


@torch.no_grad()
def test_reference(reference):
    """Pruned tokens, logits, entropies and exits of the authors' code."""
    expected = reference("dynamicvit_1h-2h")
    backbone = reference_backbone(expected)
    first, second = backbone.forward_stages(expected["x"])
    close(first.tokens, expected["tokens0"], atol=1e-4)
    close(first.logits, expected["logits0"], atol=1e-4)
    close(EntropyGate(1.0).entropy(first), expected["entropy_0"], atol=1e-4)
    close(second.logits, expected["logits1_pruned"], atol=1e-4)
    # theirs come in the order of their scores
    for mine, kept, theirs in zip(
        second.tokens, second.keep_mask[:, -1].flatten(1), expected["tokens1_pruned"], strict=True
    ):
        mine = torch.cat((mine[:1], mine[1:][kept.bool()]))
        nearest = torch.cdist(mine, theirs).argmin(dim=1)
        assert sorted(nearest.tolist()) == list(range(len(theirs)))
        close(mine, theirs[nearest], atol=1e-4)
    thought = backbone.think(expected["x"])
    close(thought.logits, expected["gated_logits"], atol=1e-4)
    stopped = thought.exit_stage == 0
    assert stopped.tolist() == thought.keep_mask[:, 0, 0, 0].isnan().tolist()
    assert 0 < stopped.sum() < 4


@torch.no_grad()
def test_reference_under_a_soft_policy(reference):
    expected = reference("dynamicvit_1h-2h")
    backbone = reference_backbone(expected)
    out = backbone.blocks[0](backbone.embed(expected["x"], 1), attention_mask(expected["policy"]))
    close(out, expected["block0_with_policy"], atol=1e-4)


@torch.no_grad()
def test_reference_without_pruning(reference):
    expected = reference("dynamicvit_1h-2h")
    output = reference_backbone(expected, keep_ratio=1).forward_stages(expected["x"])[1]
    close(output.logits, expected["logits1_full"], atol=1e-4)


@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_keep_ratio_one_is_no_pruning_to_the_bit(training):
    pruned = build(dict(PRUNING, keep_ratio=1.0)).train(training)
    plain = build(None).train(training)
    plain.load_state_dict(pruned.state_dict(), strict=False)
    images = torch.randn(3, 3, 30, 32)
    for mine, other in zip(
        pruned.forward_stages(images), plain.forward_stages(images), strict=True
    ):
        assert torch.equal(mine.tokens, other.tokens)
        assert torch.equal(mine.logits, other.logits)
        assert torch.equal(mine.features[0], other.features[0])
        assert mine.keep_mask is None


@torch.no_grad()
def test_keep_ratio_changes_at_test_time():
    backbone = build()
    images = torch.randn(2, 3, 32, 32)
    for ratio in (0.5, 0.9):
        backbone.pruning.keep_ratio = ratio
        kept = backbone.think(images).keep_mask
        assert kept.sum((2, 3))[0].tolist() == [int(64 * ratio**k) for k in (1, 2, 3)]
    twin = copy.deepcopy(backbone)
    twin.pruning.keep_ratio = 0.2
    assert backbone.pruning.keep_ratio == 0.9


def test_a_single_stage_may_be_pruned_with_its_latest_tokens():
    backbone = build(dict(PRUNING, restore="latest"), thinking_stages=(4,))
    assert backbone.think(torch.randn(1, 3, 32, 32)).keep_mask.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (dict(locations=(1, 4)), "locations"),
        (dict(locations=(-1, 2)), "locations"),
        (dict(locations=(2, 1)), "locations"),
        (dict(locations=()), "locations"),
        (dict(keep_ratio=0), "keep_ratio"),
        (dict(keep_ratio=1.1), "keep_ratio"),
        (dict(keep_ratio="0.5"), "keep_ratio"),
        (dict(stage=2), "stage"),
        (dict(stage=0), "restore must be 'latest' in stage 0"),
        (dict(restore="mean"), "restore"),
        (dict(type="ToMe"), r"pruning must be None or a dict .*\['DynamicPruning', .*\]"),
    ],
)
def test_bad_arguments(options, field):
    with pytest.raises(ConfigError, match=field):
        build(dict(PRUNING, **options))


def test_an_image_too_small():
    backbone = build()
    with pytest.raises(ConfigError, match=r"large enough to be pruned 3 times .* got \(1, 2\)"):
        backbone.forward_stages(torch.randn(1, 3, 4, 8))
    backbone.forward_stages(torch.randn(1, 3, 4, 12))


def test_built_by_class_or_scope():
    for kind in (DynamicPruning, "tvit_seg.DynamicPruning"):
        pruning = build_pruning(dict(PRUNING, type=kind), (32, 64), 4)
        assert isinstance(pruning, DynamicPruning)
    assert "keep_ratio=0.7" in repr(pruning)
