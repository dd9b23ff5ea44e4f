"""A training that was stopped, or killed at any moment, goes on as if it had not been."""

import pytest
import torch
from helpers.classification import config, image_folder
from helpers.processes import run_together

from tvit_seg.engine import ThinkingRunner

pytestmark = pytest.mark.integration

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


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("data") / "images")


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
    ("extra", "seed"),
    [
        (WORKERS, None),
        (REPEATED, 0),
        (ACCUMULATED, 0),
        ({**ITERATIONS, **WORKERS, **ACCUMULATED}, 0),
        ({**ITERATIONS, **SANDWICH}, None),
    ],
    ids=["workers", "repeated", "accumulated", "iterations", "sandwich"],
)
def test_resumed_equals_uninterrupted(root, tmp_path, extra, seed):
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


def test_steps_differ_and_seeds_count(root, tmp_path):
    """The hook does not make every step the same, nor every seed."""
    changes = {"train_dataloader.sampler.shuffle": False, "model.backbone.drop_path_rate": 0.9}
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        runner = train(root, tmp_path / name, **changes, **{"randomness.seed": seed})
        weights.append(runner.model.backbone.head.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


WORKER = """
import sys
import torch
import torch.distributed as dist
from helpers.tiny import Numbers, Tiny
from mmengine.config import Config

from tvit_seg.engine import ThinkingRunner, close_distributed, prepare_distributed


def train(work_dir, load_from=None):
    torch.manual_seed(0)
    cfg = Config(dict(
        work_dir=work_dir, launcher="pytorch", log_level="WARNING", randomness=dict(seed=0),
        resume=load_from is not None, load_from=load_from, experiment_name=work_dir,
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=6),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.1), accumulative_counts=3),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=2, by_epoch=False)),
    ))
    arguments = cfg.to_dict()
    cfg.find_unused_parameters = True
    prepare_distributed(cfg)
    sampler = dict(type="InfiniteSampler", shuffle=True)
    loader = dict(dataset=Numbers(24, 0.1), batch_size=2, sampler=sampler)
    runner = ThinkingRunner(model=Tiny(), train_dataloader=loader, cfg=cfg, **arguments)
    runner.train()
    return runner


folder = sys.argv[1]
whole = train(folder + "/whole")
for step in (2, 4):
    resumed = train(f"{folder}/from{step}", f"{folder}/whole/iter_{step}.pth")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
if dist.get_rank() == 0:
    saved = [torch.load(f"{folder}/whole/iter_{i}.pth", weights_only=True) for i in (2, 4, 6)]
    print("SAVED", [sorted(one.get("accumulated_gradients", ())) for one in saved])
del resumed
close_distributed(whole)
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_accumulated_gradients_in_two_processes(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    out = run_together(2, tmp_path / "worker.py", tmp_path, cwd=tmp_path)
    both = ["layer.bias", "layer.weight"]
    assert f"SAVED [{both}, {both}, []]" in out
