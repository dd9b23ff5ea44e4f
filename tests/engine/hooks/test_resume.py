"""State and random numbers that a resumed training finds again."""

import copy
import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.builders import batch, segmentor
from helpers.classification import config, image_folder
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.optim import OptimWrapper
from torch import nn
from torch.utils.data import Dataset

from tvit_seg.engine import ThinkingRunner
from tvit_seg.engine.hooks.resume import (
    GradientHook,
    SeededDataset,
    SeededIndex,
    StepSeedHook,
    TeacherHook,
    seeded_sampler,
)

PRUNING = dict(type="DynamicPruning", locations=(0, 1), keep_ratio=0.7)


class Draws(Dataset):
    """One number of each source of random numbers."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        assert type(index) is int
        return index, random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002


def test_a_key_gives_the_same_numbers_at_any_time():
    data = SeededDataset(Draws())
    first = data[SeededIndex(3, (0, 0, 0, 7))]
    assert first[0] == 3
    assert data[SeededIndex(3, (0, 0, 0, 7))] == first
    for key in ((1, 0, 0, 7), (0, 1, 0, 7), (0, 0, 1, 7), (0, 0, 0, 8)):
        other = data[SeededIndex(3, key)]
        assert not set(first[1:]) & set(other[1:])
    assert data[3] != data[3]


def test_indices_survive_the_way_to_a_loading_process():
    index = pickle.loads(pickle.dumps(SeededIndex(3, (0, 1, 2, 3))))
    assert index == 3
    assert index.key == (0, 1, 2, 3)
    assert copy.deepcopy(index).key == (0, 1, 2, 3)


def test_epochs_begin_anew():
    sampler = seeded_sampler(DefaultSampler)(range(4), seed=5)
    assert [index.key for index in sampler] == [(5, 0, 0, i) for i in range(4)]
    sampler.set_epoch(2)
    assert [index.key for index in sampler] == [(5, 0, 2, i) for i in range(4)]
    assert isinstance(sampler, DefaultSampler)


@pytest.mark.skipif(not hasattr(InfiniteSampler, "skip"), reason="this mmengine reloads batches")
def test_skipped_positions_count():
    whole = iter(seeded_sampler(InfiniteSampler)(range(9), seed=1))
    sampler = seeded_sampler(InfiniteSampler)(range(9), seed=1)
    sampler.skip(20)
    resumed = iter(sampler)
    expected = [next(whole) for _ in range(25)][20:]
    found = [next(resumed) for _ in range(5)]
    assert found == expected
    assert [index.key for index in found] == [index.key for index in expected]


@pytest.mark.integration
def test_loading_processes_make_no_difference(tmp_path):
    cfg = config(image_folder(tmp_path / "images"), tmp_path)
    cfg.train_dataloader.dataset.transform = dict(
        input_size=8, is_training=True, auto_augment="rand-m9-mstd0.5-inc1"
    )
    cfg.train_dataloader.sampler.shuffle = False

    def epochs(workers, seed=0):
        cfg.train_dataloader.num_workers = workers
        loader = ThinkingRunner.build_dataloader(cfg.train_dataloader, seed=seed)
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            yield torch.cat([torch.stack(batch["inputs"]) for batch in loader])

    (first, second), (again, _), (other, _) = epochs(0), epochs(2), epochs(0, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("differ", [False, True])
def test_random_numbers_that_processes_share(differ):
    """Also where mmengine adds the rank to the seed."""
    hook = StepSeedHook()

    def draws(rank, seed=5):
        model = SimpleNamespace(shared_random=random.Random(rank))
        seed += rank if differ else 0
        options = dict(diff_rank_seed=differ)
        runner = SimpleNamespace(rank=rank, seed=seed, model=model, _randomness_cfg=options)
        found = []
        for runner.iter in range(3):
            hook.before_train_iter(runner, 0)
            found.append((model.shared_random.random(), random.random()))
        return list(zip(*found, strict=True))

    (shared, own), (shared_too, own_too) = draws(0), draws(1)
    assert shared == shared_too
    assert len(set(shared)) == 3
    assert not set(own) & set(own_too)
    assert not set(shared) & set(draws(0, seed=6)[0])


def accumulating(count, value=1.0):
    model = nn.Linear(2, 1, bias=False)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1), accumulative_counts=3)
    for _ in range(count):
        wrapper.update_params(model(torch.ones(2)).sum() * value)
    return SimpleNamespace(model=model, optim_wrapper=wrapper)


@pytest.mark.parametrize(
    ("count", "value", "checkpoint", "saved"),
    [
        (2, 1.0, {"optimizer": {}}, True),
        (3, 1.0, {"optimizer": {}}, False),
        (2, 1.0, {}, False),  # the best weights
        (2, float("inf"), {"optimizer": {}}, False),
    ],
)
def test_gradients_are_saved(count, value, checkpoint, saved):
    runner = accumulating(count, value)
    GradientHook().before_save_checkpoint(runner, checkpoint)
    assert ("accumulated_gradients" in checkpoint) == saved
    if saved:
        gradient = checkpoint["accumulated_gradients"]["weight"]
        torch.testing.assert_close(gradient, torch.full((1, 2), 2 / 3))


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
