"""What a pruned model is distilled from outlives a restart, and no more than that."""

from types import SimpleNamespace

import torch
from helpers.builders import batch, segmentor

from tvit_seg.engine.hooks.teacher import TeacherHook

PRUNING = dict(type="DynamicPruning", locations=(0, 1), keep_ratio=0.7)


def runner(resume=False, pruning=PRUNING):
    model = segmentor(image_loss={}, backbone=dict(pruning=pruning)).train()
    return SimpleNamespace(model=model, _resume=resume)


def test_resuming_brings_the_teacher_back():
    hook, first, checkpoint = TeacherHook(), runner(), {}
    hook.before_save_checkpoint(first, checkpoint)
    assert not checkpoint  # it is made in the first step
    first.model.loss(*batch())
    hook.before_save_checkpoint(first, checkpoint)
    saved = checkpoint["pruning_teacher"]
    assert torch.equal(saved["cls_token"], first.model.backbone.cls_token)
    resumed, loaded = runner(resume=True), runner()
    for other in (resumed, loaded):
        hook.after_load_checkpoint(other, checkpoint)
    assert resumed.model.pruning_loss.teacher.weights is saved
    assert not loaded.model.pruning_loss.teacher.weights


def test_models_without_pruning_have_none():
    checkpoint, plain = {}, runner(resume=True, pruning=None)
    TeacherHook().before_save_checkpoint(plain, checkpoint)
    TeacherHook().after_load_checkpoint(plain, {"pruning_teacher": {}})
    assert not checkpoint
