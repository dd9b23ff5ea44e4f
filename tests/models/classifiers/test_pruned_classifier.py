"""A classifier whose backbone prunes tokens."""

import pytest
import torch
from helpers.builders import class_samples, classifier
from helpers.contracts import close

from tvit_seg import RandomGate

PRUNING = dict(type="DynamicPruning", locations=(0, 1), keep_ratio=0.7)
IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SAMPLES = class_samples([i % 5 for i in range(6)])


def pruned(gate=None, backbone=(), **kwargs):
    return classifier(
        gate, backbone={"patch_size": 4, "pruning": PRUNING, **dict(backbone)}, **kwargs
    )


def test_pruning_losses():
    model = pruned(pruning_loss=dict(tokens_weight=1.0)).train()
    losses = model.loss(IMAGES, SAMPLES)
    assert {name for name in losses if name.startswith("pruning")} == {
        "pruning.loss_ratio", "pruning.loss_logits", "pruning.loss_tokens",
    }  # fmt: skip
    model.parse_losses(losses)[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_sandwich_prunes_when_it_trains_the_stage():
    """On average over its draws, the pruning losses are those of training every stage."""
    options = dict(backbone=dict(thinking_stages=(1, 2, 3, 4), pruning=dict(PRUNING, stage=1)))
    model = pruned(sandwich=True, **options).train()
    asked = []
    model.pruning_loss.register_forward_hook(lambda *_: asked.append(1))
    drawn = []
    for _ in range(12):
        losses = model.loss(IMAGES, SAMPLES)
        assert ("stage1.loss" in losses) == ("pruning.loss_ratio" in losses)
        if "pruning.loss_logits" in losses:
            drawn.append(losses["pruning.loss_logits"])
            assert drawn[-1].requires_grad
    assert 0 < len(drawn) == len(asked) < 12


@pytest.mark.parametrize("per_stage", [False, True])
@torch.no_grad()
def test_results_carry_the_tokens_that_survived(per_stage):
    model = pruned(RandomGate(0.5, seed=0), test_cfg=dict(per_stage=per_stage))
    results = model.predict(IMAGES)
    assert {int(result.exit_stage) for result in results} == {0, 1}
    for result in results:
        assert result.kept_tokens.shape == (2, 8, 8)
        assert result.kept_tokens.isnan().all() == (result.exit_stage == 0)
    close(results[0].pred_score, model.predict(IMAGES[:1])[0].pred_score)
