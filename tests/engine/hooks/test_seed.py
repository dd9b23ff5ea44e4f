"""A resumed training is the uninterrupted one."""

import random
from types import SimpleNamespace

import pytest
import torch
from helpers.classification import config, image_folder

from tvit_seg.engine import ThinkingRunner
from tvit_seg.engine.hooks.seed import StepSeedHook

AUGMENTED = {
    "train_dataloader.dataset.transform": dict(
        input_size=32, is_training=True, auto_augment="rand-m9-mstd0.5-inc1"
    ),
    "model.backbone.drop_path_rate": 0.5,
    "model.backbone.drop_rate": 0.1,
    "model.data_preprocessor": dict(
        random_erasing=dict(probability=0.5, mode="pixel"),
        mixup=dict(mixup_alpha=0.8, cutmix_alpha=1.0),
    ),
    "custom_hooks": [dict(type="EMAHook", momentum=0.1)],
    "param_scheduler": [
        dict(type="LinearLR", start_factor=0.1, end=1, convert_to_iter_based=True),
        dict(type="CosineAnnealingLR", begin=1, end=4, convert_to_iter_based=True),
    ],
}
WORKERS = {"train_dataloader.num_workers": 2, "train_dataloader.persistent_workers": True}
REPEATED = {"train_dataloader.sampler": dict(type="RepeatedAugSampler", num_repeats=2)}
ITERATIONS = {
    "train_cfg": dict(type="IterBasedTrainLoop", max_iters=6, val_interval=2),
    "train_dataloader.sampler": dict(type="InfiniteSampler", shuffle=True),
    "default_hooks.checkpoint.by_epoch": False,
    "default_hooks.checkpoint.max_keep_ckpts": -1,
}
SANDWICH = {"model.sandwich": True, "model.backbone.thinking_stages": (1, 2, 3, 4)}
ACCUMULATED = {"optim_wrapper.accumulative_counts": 3}


def train(root, work_dir, resume=False, **changes):
    work_dir.mkdir(exist_ok=True)
    runner = ThinkingRunner.from_cfg(config(root, work_dir, resume=resume, **changes))
    runner.train()
    return runner


def averages(runner):
    """The moving averages."""
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == "EMAHook")
    return hook.ema_model.state_dict()


@pytest.mark.parametrize(
    "extra",
    [{}, WORKERS, REPEATED, ACCUMULATED, ITERATIONS, {**ITERATIONS, **WORKERS}, SANDWICH]
    + [{**ITERATIONS, **ACCUMULATED}],
    ids=["plain", "workers", "repeated", "accumulated", "iterations", "both", "sandwich"]
    + ["accumulating"],
)
@pytest.mark.parametrize("seed", [0, None])
def test_resumed_equals_uninterrupted(tmp_path, extra, seed):
    root = image_folder(tmp_path / "images")
    changes = {**AUGMENTED, **extra, "randomness.seed": seed}
    whole = train(root, tmp_path / "whole", **changes)
    name = "iter_2.pth" if ITERATIONS.items() <= extra.items() else "epoch_1.pth"
    resumed = train(
        root,
        tmp_path / "parts",
        resume=True,
        load_from=str(tmp_path / "whole" / name),
        **changes,
    )
    assert resumed.iter == whole.iter == 6
    for a, b in ((whole.model.state_dict(), resumed.model.state_dict()),
                 (averages(whole), averages(resumed))):  # fmt: skip
        for key in a:
            assert torch.equal(a[key], b[key]), key


@pytest.mark.parametrize("differ", [False, True])
def test_what_processes_draw_alike(differ):
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


def test_steps_differ_and_seeds_count(tmp_path):
    """The hook does not make every step the same, nor every seed."""
    root = image_folder(tmp_path / "images")
    changes = {"train_dataloader.sampler.shuffle": False, "model.backbone.drop_path_rate": 0.9}
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        runner = train(root, tmp_path / name, **changes, **{"randomness.seed": seed})
        weights.append(runner.model.backbone.head.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
