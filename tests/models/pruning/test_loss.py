"""Ratio loss and distillation."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.contracts import close

from tvit_seg import ThinkingViT
from tvit_seg.errors import ConfigError
from tvit_seg.models.pruning import PruningLoss, build_pruning_loss
from tvit_seg.models.pruning.loss import binary_divergence, categorical_divergence, ratio_loss

SMALL = dict(
    img_size=32,
    patch_size=4,
    embed_dims=32,
    num_layers=4,
    num_heads=4,
    thinking_stages=(2, 4),
    num_classes=5,
)


def build(keep_ratio=0.7, **kwargs):
    pruning = dict(type="DynamicPruning", locations=(1, 2, 3), keep_ratio=keep_ratio)
    backbone = ThinkingViT(**{**SMALL, **kwargs}, pruning=pruning)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return backbone


def test_ratio_loss_is_zero_at_the_wanted_shares():
    kept = torch.zeros(2, 2, 4, 5)
    kept[:, 0, :2] = 1  # a half
    kept[:, 1, 0] = 1  # a quarter
    assert ratio_loss(kept, 0.5) == 0
    kept[0, 0] = 1
    assert ratio_loss(kept, 0.5) == pytest.approx(0.5**2 / 4)


def test_divergences():
    a, b = torch.randn(2, 6, 5)
    published = F.kl_div(
        a.log_softmax(-1), b.log_softmax(-1), reduction="batchmean", log_target=True
    )
    close(categorical_divergence(a, b).mean(), published)
    target = b.sigmoid()
    cross = F.binary_cross_entropy_with_logits(a, target, reduction="none")
    entropy = F.binary_cross_entropy_with_logits(b, target, reduction="none")
    close(binary_divergence(a, b), (cross - entropy).mean(-1))
    assert binary_divergence(a, a).abs().max() == 0


@pytest.mark.parametrize("use_sigmoid", [False, True])
def test_all_losses(use_sigmoid):
    backbone, images = build(), torch.randn(2, 3, 32, 32)
    plain = copy.deepcopy(backbone).eval()
    plain.pruning = None
    target = plain.forward_stages(images)[1]
    outputs = backbone.train().forward_stages(images)
    weights = dict(ratio_weight=3.0, logits_weight=0.25, tokens_weight=0.125)
    losses = PruningLoss(**weights)(backbone, outputs, images, use_sigmoid)
    output = outputs[1]
    close(losses["loss_ratio"], 3 * ratio_loss(output.keep_mask, 0.7))
    divergence = binary_divergence if use_sigmoid else categorical_divergence
    close(losses["loss_logits"], 0.25 * divergence(output.logits, target.logits).mean())
    kept = output.keep_mask[:, -1].flatten().bool()
    mine, goal = (out.tokens[:, 1:].flatten(0, 1)[kept] for out in (output, target))
    close(losses["loss_tokens"], 0.125 * categorical_divergence(mine, goal).mean())
    sum(losses.values()).backward()
    for predictor in backbone.pruning.predictors:
        assert all(p.grad.abs().sum() > 0 for p in predictor.parameters())


def test_weight_zero_leaves_out_and_needs_no_teacher(monkeypatch):
    backbone, images = build().train(), torch.randn(2, 3, 32, 32)
    outputs = backbone.forward_stages(images)
    loss = PruningLoss(logits_weight=0, tokens_weight=0)
    monkeypatch.setattr(loss.teacher, "_make", None)
    assert set(loss(backbone, outputs, images)) == {"loss_ratio"}
    assert set(PruningLoss(logits_weight=0)(backbone, outputs, images)) == {
        "loss_ratio",
        "loss_tokens",
    }


def test_nothing_pruned_gives_no_losses():
    backbone, images = build(keep_ratio=1).train(), torch.randn(2, 3, 32, 32)
    assert PruningLoss()(backbone, backbone.forward_stages(images), images) == {}


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (dict(ratio_weight=-1), "ratio_weight"),
        (dict(tokens_weight="1"), "tokens_weight"),
        (dict(teacher="deit.pth"), "teacher"),
        (dict(teacher=dict(type="Pretrained")), "teacher"),
        (dict(teacher=dict(type="Pretrained", checkpoint="x.pth", prefx="a")), "teacher"),
    ],
)
def test_bad_arguments(options, field):
    with pytest.raises(ConfigError, match=f"pruning_loss {field} must be"):
        PruningLoss(**options)


def test_built_for_backbones_that_prune():
    plain = ThinkingViT(**SMALL)
    assert build_pruning_loss(None, plain) is None
    assert build_pruning_loss(None, build()).ratio_weight == 2.0
    assert build_pruning_loss(dict(ratio_weight=1.0), build()).ratio_weight == 1.0
    with pytest.raises(ConfigError, match="pruning_loss must be None"):
        build_pruning_loss({}, plain)
