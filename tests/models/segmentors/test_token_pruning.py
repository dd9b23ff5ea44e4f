"""A segmentor whose backbone prunes tokens."""

import pytest
import torch
from helpers.builders import SLIDE, batch, segmentor
from helpers.contracts import close

from tvit_seg import RandomGate, stage_macs

PRUNING = dict(type="DynamicPruning", locations=(0, 1), keep_ratio=0.7)


def pruned(gate=None, **kwargs):
    return segmentor(gate, backbone=dict(img_size=64, patch_size=4, pruning=PRUNING), **kwargs)


def test_pruning_losses():
    model = pruned(image_loss={}, pruning_loss=dict(ratio_weight=1.0)).train()
    losses = model.loss(*batch())
    found = {name for name in losses if name.startswith("pruning")}
    assert found == {"pruning.loss_ratio", "pruning.loss_logits", "pruning.loss_tokens"}
    model.parse_losses(losses)[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert not any("teacher" in name for name in model.state_dict())


def test_a_stage_without_weight_is_not_pruned():
    with pytest.raises(ValueError, match="loss_weights must be > 0 for stage 1"):
        pruned(loss_weights=[1.0, 0.0])


def test_the_teacher_is_read_before_training(tmp_path):
    teacher = dict(type="Pretrained", checkpoint=str(tmp_path / "teacher.pth"))
    model = pruned(image_loss={}, pruning_loss=dict(teacher=teacher)).train()
    with pytest.raises(FileNotFoundError, match=r"teacher\.pth does not exist"):
        model.init_weights()
    torch.save(model.backbone.state_dict(), teacher["checkpoint"])
    model.init_weights()
    (tmp_path / "teacher.pth").unlink()
    model.loss(*batch())


def test_pruning_loss_for_a_backbone_that_does_not_prune():
    with pytest.raises(ValueError, match="pruning_loss must be None"):
        segmentor(pruning_loss=dict(ratio_weight=1.0))


@pytest.mark.parametrize("size", [(32, 32), (27, 45)])
@torch.no_grad()
def test_results_carry_the_tokens_that_survived(size):
    model = pruned(RandomGate(0.5, seed=0))
    images, _ = batch(6, size)
    grid = [-(-length // 4) for length in size]
    for image, result in zip(images, model.predict(images), strict=True):
        assert result.kept_tokens.shape == (2, *grid)
        assert result.kept_tokens.isnan().all() == (result.exit_stage == 0)
        alone = model.predict(image[None])[0]
        close(alone.seg_logits.data, result.seg_logits.data)
        assert torch.equal(alone.kept_tokens.isnan(), result.kept_tokens.isnan())
        if result.exit_stage == 1:
            assert torch.equal(alone.kept_tokens, result.kept_tokens)
    assert "kept_tokens" not in segmentor().predict(images)[0]


@torch.no_grad()
def test_windows_carry_the_tokens_that_survived():
    model = pruned(RandomGate(0.5, seed=2), test_cfg=dict(SLIDE, window_batch_size=2))
    images, _ = batch(2, (70, 61))
    for result in model.predict(images):
        assert result.kept_tokens.shape == (9, 2, 8, 8)
        stopped = result.exit_stage == 0
        assert result.kept_tokens[stopped].isnan().all()
        assert not result.kept_tokens[~stopped].isnan().any()


@torch.no_grad()
def test_cost_follows_the_keep_ratio():
    model = pruned()
    images, _ = batch(1)
    costs = {}
    for ratio in (0.4, 1.0, 0.7):
        model.backbone.pruning.keep_ratio = ratio
        costs[ratio] = model.predict(images)[0].gmacs
        assert costs[ratio] == pytest.approx(stage_macs(model, (32, 32))[1] / 1e9)
    assert costs[0.4] < costs[0.7] < costs[1.0]
