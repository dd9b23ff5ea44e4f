"""UncertaintyPruning: a stage runs on uncertain tokens, the others lend keys and values."""

from functools import partial

import pytest
import torch
from helpers.builders import LINEAR, MASK, SLIDE, batch, segmentor
from helpers.contracts import BackboneContract, close
from mmseg.models import EncoderDecoder
from torch import nn

from tvit_seg import EntropyGate, FixedGate, RandomGate, ThinkingViT, stage_macs
from tvit_seg.errors import ConfigError
from tvit_seg.models.layers import NestedAttention
from tvit_seg.models.pruning import AllTokens, build_pruning
from tvit_seg.models.pruning.functional import sampling_noise, split_tokens, token_uncertainty
from tvit_seg.thinking import Decode

SMALL = dict(
    img_size=32,
    patch_size=4,
    embed_dims=64,
    num_layers=3,
    num_heads=4,
    thinking_stages=(2, 4),
    num_classes=10,
)
PRUNING = dict(type="UncertaintyPruning", keep_ratio=0.4)
# the same tokens in every iteration
STEADY = dict(PRUNING, train_ratios=(0.4, 0.4), train_all=0.0, train_noise=0.0)


def build(pruning=STEADY, **kwargs):
    """A backbone together with a decode head of one layer."""
    backbone = ThinkingViT(**{**SMALL, **kwargs}).eval()
    backbone.set_pruning(pruning, has_decode_head=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Conv2d(64, 5, 1)

    def coarse(features):
        x = features[0][0] if backbone.output_cls_token else features[0]
        return 9 * head(x.detach())

    decode = Decode(coarse, upsample=nn.Identity())

    backbone.think = partial(backbone.think, decode=decode)
    backbone.forward_stages = partial(backbone.forward_stages, decode=decode)
    return backbone


class TestTokens(BackboneContract):
    """The contract with uncertain tokens."""

    def build(self, **kwargs):
        return build(**kwargs)

    test_drop_in_estimates_the_joint_loss = test_names_are_timms = None


class TestThreeStages(TestTokens):
    """The contract where two stages are pruned, and tokens lend what they were lent for."""

    num_stages = 3

    def build(self, **kwargs):
        kwargs = dict(dict(thinking_stages=(1, 2, 4)), **kwargs)
        return build(dict(STEADY, stages=(1, 2)), **kwargs)


class TestToday(TestTokens):
    """The contract with registers, which always run, and rotary positions."""

    def build(self, **kwargs):
        kwargs = dict(dict(reg_tokens=2, qk_norm=True, rope=dict(rope_type="cat")), **kwargs)
        return build(**kwargs)


def pruned(gate=None, pruning=PRUNING, **kwargs):
    return segmentor(gate, backbone=dict(img_size=64, patch_size=4, pruning=pruning), **kwargs)


def test_lent_tokens_are_attended_to_as_if_zero_padded():
    attention = NestedAttention(64, 4, qkv_bias=True)
    x, narrow = torch.randn(2, 5, 64), torch.randn(2, 7, 32)
    whole = attention(torch.cat((x, nn.functional.pad(narrow, (0, 32))), dim=1))
    close(attention(x, lent=narrow), whole[:, :5])
    close(attention(x, lent=narrow[:, :0]), attention(x))
    rope = torch.randn(2, 1, 12, 32)  # of each image's tokens, those that lend last
    attention.rope_rotate_half = False
    whole = attention(torch.cat((x, nn.functional.pad(narrow, (0, 32))), dim=1), rope=rope)
    close(attention(x, lent=narrow, rope=rope), whole[:, :5])


@torch.no_grad()
def test_registers_always_run():
    backbone = build(reg_tokens=2, rope=dict(rope_type="cat"))
    first, second = backbone.forward_stages(torch.randn(2, 3, 32, 32))
    changed = (second.tokens[..., :32] != first.tokens).any(dim=-1)
    assert changed[:, :3].all()
    assert torch.equal(changed[:, 3:], second.keep_mask.flatten(1).bool())


@torch.no_grad()
def test_uncertain_tokens_run_and_others_keep_their_narrow_answer():
    backbone = build(out_indices=(0, 1, 2))
    first, second = backbone.forward_stages(torch.randn(3, 3, 28, 32))
    assert second.keep_mask.shape == (3, 1, 7, 8)
    assert second.keep_mask.sum((1, 2, 3)).tolist() == [int(56 * 0.4)] * 3
    kept = second.keep_mask.bool().expand_as(second.features[0])
    for narrow, wide in zip(first.features, second.features, strict=True):
        assert torch.equal(wide[~kept], narrow[~kept])
        assert not torch.isclose(wide[kept], narrow[kept]).any(dim=0).all()


@torch.no_grad()
def test_the_least_certain_tokens_are_chosen():
    model = pruned()
    images, _ = batch(2)
    first, second = model.backbone.forward_stages(images, decode=model.decoder(images))
    scores = token_uncertainty(model.decoder(images).coarse(first.features), (8, 8), "entropy")
    for mask, score in zip(second.keep_mask.flatten(1).bool(), scores, strict=True):
        assert score[mask].min() >= score[~mask].max()


@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_all_tokens_are_no_pruning_to_the_bit(training):
    whole = build(dict(STEADY, keep_ratio=1.0, train_all=1.0)).train(training)
    plain = build(None).train(training)
    plain.load_state_dict(whole.state_dict())  # it has no weights of its own
    images = torch.randn(3, 3, 30, 32)
    pairs = zip(whole.forward_stages(images), plain.forward_stages(images), strict=True)
    for mine, other in pairs:
        assert torch.equal(mine.tokens, other.tokens)
        assert torch.equal(mine.features[0], other.features[0])
        assert mine.keep_mask is None


def test_training_draws_shares_and_noise():
    torch.manual_seed(0)
    pruning = build_pruning(PRUNING, (32, 64), 3, has_decode_head=True).train()
    backbone = build()
    images = torch.randn(2, 3, 40, 40)
    first = backbone.forward_stages(images)[0]
    first = type(first)(**{**vars(first), "coarse_logits": torch.randn(2, 5, 10, 10)})
    runs = [pruning.start(1, first, (10, 10)) for _ in range(400)]
    counts = [r.keep_mask[0].sum().item() for r in runs if type(r) is not AllTokens]
    assert 290 < len(counts) < 350  # four fifths
    assert 5 <= min(counts) < 10 and 75 < max(counts) <= 80
    scores = token_uncertainty(first.coarse_logits, (10, 10), "entropy")
    top = [
        torch.equal(r.kept[:, 1:] - 1, split_tokens(scores, r.kept.shape[1] - 1)[0])
        for r in runs
        if type(r) is not AllTokens
    ]
    assert 0.4 < sum(top) / len(top) < 0.6
    assert type(pruning.start(0, None, (10, 10))) is AllTokens


@pytest.mark.parametrize("measure", ["entropy", "margin"])
def test_uncertainty(measure):
    logits = torch.zeros(1, 3, 4, 4)
    logits[0, 0, :2, :2] = 20  # certain
    logits[0, :2, 2:, 2:] = 20  # between two classes
    (scores,) = token_uncertainty(logits, (2, 2), measure)
    assert scores[0] < 1e-4
    assert scores[3] == pytest.approx(dict(entropy=0.6931, margin=1.0)[measure], abs=1e-3)
    single = token_uncertainty(torch.tensor([[[[-9.0, 0.0, 9.0]]]]), (1, 3), measure)
    assert single.argmax() == 1 and single.min() < 0.01


def test_noise_samples_in_proportion_to_the_scores():
    torch.manual_seed(0)
    scores = torch.tensor([[1.0, 2.0, 5.0]]).expand(20000, 3)
    chosen = split_tokens(sampling_noise(scores), 1)[0].flatten().bincount() / 20000
    close(chosen, torch.tensor([1.0, 2.0, 5.0]) / 8, atol=0.01)


@pytest.mark.parametrize("nested_head", [False, True])
@pytest.mark.parametrize("head", [LINEAR, MASK], ids=["linear", "mask"])
def test_a_training_step_reaches_every_parameter(head, nested_head):
    model = pruned(pruning=STEADY, head=head, image_loss={}, nested_head=nested_head).train()
    losses = model.loss(*batch())
    assert not any(name.startswith("pruning") for name in losses)
    model.parse_losses(losses)[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("head", [LINEAR, MASK], ids=["linear", "mask"])
@torch.no_grad()
def test_batch_mates_and_gate(head):
    """Image gate and tokens together; a linear head gives other tokens their narrow answer."""
    model = pruned(RandomGate(0.5, seed=0), head=head)
    images, _ = batch(6, (27, 45))
    narrow = model.think(images, FixedGate(0)).seg_logits
    for i, result in enumerate(model.predict(images)):
        assert result.kept_tokens.shape == (1, 7, 12)
        assert result.kept_tokens.isnan().all() == (result.exit_stage == 0)
        alone = model.predict(images[i : i + 1])[0]
        close(alone.seg_logits.data, result.seg_logits.data)
        if result.exit_stage == 0:
            close(result.seg_logits.data, narrow[i])
        else:
            assert torch.equal(alone.kept_tokens, result.kept_tokens)


@torch.no_grad()
def test_a_linear_head_leaves_the_logits_of_other_tokens():
    model = pruned()
    images, _ = batch(2)
    narrow, wide = model.backbone.forward_stages(images, decode=model.decoder(images))
    decoded = [model.decode_head(output.features) for output in (narrow, wide)]
    others = ~wide.keep_mask.bool().expand_as(decoded[0])
    close(decoded[1][others], decoded[0][others])


@torch.no_grad()
def test_windows():
    model = pruned(RandomGate(0.5, seed=2), test_cfg=dict(SLIDE, window_batch_size=2))
    images, _ = batch(2, (70, 61))
    results = model.predict(images)
    model.test_cfg["window_batch_size"] = 1
    for image, result in zip(images, results, strict=True):
        assert result.kept_tokens.shape == (9, 1, 8, 8)
        assert torch.equal(result.kept_tokens[:, 0, 0, 0].isnan(), result.exit_stage == 0)
        close(model.predict(image[None])[0].seg_logits.data, result.seg_logits.data)


@torch.no_grad()
def test_keep_masks_of_several_stages():
    backbone = build(dict(STEADY, stages=(1, 3)), thinking_stages=(1, 2, 3, 4))
    images = torch.randn(4, 3, 32, 32)
    assert backbone.think(images, FixedGate(3)).keep_mask.sum((2, 3)).tolist() == [[25, 25]] * 4
    known = ~backbone.think(images, FixedGate(2)).keep_mask.isnan()
    assert known[:, 0].all() and not known[:, 1].any()
    assert backbone.think(images, FixedGate(0)).keep_mask.isnan().all()


@torch.no_grad()
def test_cost_follows_the_keep_ratio():
    model = pruned()
    whole = stage_macs(pruned(pruning=None), (32, 32))
    images, _ = batch(1)
    costs = []
    for ratio in (0.2, 0.6, 1.0):
        model.backbone.pruning.keep_ratio = ratio
        costs.append(model.predict(images)[0].gmacs)
        assert costs[-1] == pytest.approx(stage_macs(model, (32, 32))[1] / 1e9)
        assert stage_macs(model, (32, 32))[0] == whole[0]
    assert costs == sorted(costs)
    assert costs[-1] == pytest.approx(whole[1] / 1e9)


def test_needs_a_decode_head():
    backbone = dict(type="ThinkingViT", pruning=PRUNING, **SMALL)
    with pytest.raises(ConfigError, match="pruning must be one that needs no decode head"):
        EncoderDecoder(backbone=backbone, decode_head=LINEAR)
    plain = ThinkingViT(**SMALL)
    plain.set_pruning(PRUNING, has_decode_head=True)
    with pytest.raises(ConfigError, match="UncertaintyPruning reads decoded pixels"):
        plain.eval().think(torch.randn(1, 3, 32, 32))
    stops = plain.think(torch.randn(1, 3, 32, 32), EntropyGate(9.0))
    assert stops.exit_stage == 0  # nobody reads pixels


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (dict(keep_ratio=0), "keep_ratio"),
        (dict(stages=()), "stages"),
        (dict(stages=(0, 1)), "stages"),
        (dict(stages=(2,)), "stages"),
        (dict(measure="variance"), "measure"),
        (dict(train_ratios=(0.8, 0.1)), "train_ratios"),
        (dict(train_ratios=(0.0, 0.1)), "train_ratios"),
        (dict(train_all=1.5), "train_all"),
        (dict(train_noise=-1), "train_noise"),
    ],
)
def test_bad_arguments(options, field):
    with pytest.raises(ConfigError, match=f"pruning {field}"):
        build(dict(PRUNING, **options))
    with pytest.raises(ConfigError, match="pruning_loss"):
        pruned(pruning_loss={})
