"""Training stops where numbers end, and says where to go on from."""

import re
import warnings

import pytest
import torch
from helpers.classification import config, image_folder
from mmengine.hooks import Hook

from tvit_seg.engine import ThinkingRunner
from tvit_seg.errors import DivergedError
from tvit_seg.weights.io import read_checkpoint

pytestmark = pytest.mark.integration


class Breaks(Hook):
    """Puts a value into something before an iteration."""

    priority = "VERY_LOW"

    def __init__(self, iteration, find, value):
        self.iteration, self.find, self.value = iteration, find, value

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            with torch.no_grad():
                self.find(runner).fill_(self.value)


class BreaksAfter(Breaks):
    """The same after the loss was looked at."""

    def before_train_iter(self, *args, **kwargs):
        pass

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        super().before_train_iter(runner, batch_idx)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("data") / "images")


def run(root, work_dir, hook, whole=True, **changes):
    work_dir.mkdir()
    changes["train_cfg"] = dict(type="IterBasedTrainLoop", max_iters=6, val_interval=100)
    changes["train_dataloader.sampler"] = dict(type="InfiniteSampler", shuffle=True)
    changes["default_hooks.checkpoint.by_epoch"] = False
    changes["default_hooks.checkpoint.interval"] = 2
    runner = ThinkingRunner.from_cfg(config(root, work_dir, **changes))
    runner.register_hook(hook)
    with pytest.raises(DivergedError) as diverged:
        runner.train()
    for path in work_dir.glob("*.pth") if whole else ():
        read_checkpoint(path)
    return str(diverged.value)


def stage_1(runner):
    return runner.model.backbone.recycle[0].scale


def test_iteration_loss_stage_and_last_good_checkpoint_are_named(root, tmp_path):
    text = run(root, tmp_path / "w", Breaks(4, stage_1, float("nan")))
    assert text.startswith("iteration 5: loss=nan, stage1.loss=nan; ")
    assert "stage0" not in text
    assert text.endswith(f"the last good checkpoint is {tmp_path / 'w' / 'iter_4.pth'}")


def test_a_damaged_checkpoint_is_not_called_good(root, tmp_path):
    def cut(runner):
        path = tmp_path / "w" / "iter_4.pth"
        path.write_bytes(path.read_bytes()[:999])
        return stage_1(runner)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = run(root, tmp_path / "w", Breaks(4, cut, float("nan")), whole=False)
    assert re.search(r"the last good checkpoint is \S+iter_2\.pth$", text)


def test_a_state_that_cannot_be_resumed_from_is_not_saved(root, tmp_path):
    def average(runner):
        hook = next(hook for hook in runner.hooks if type(hook).__name__ == "EMAHook")
        return hook.ema_model.module.backbone.pos_embed

    hook = BreaksAfter(3, average, float("nan"))
    hook.priority = "LOW"  # after the averaging, before the saving
    hooks = [dict(type="EMAHook", momentum=0.1)]
    text = run(root, tmp_path / "w", hook, custom_hooks=hooks)
    assert text.startswith("iteration 4: 1 tensors hold NaN or infinity (")
    assert text.endswith("iter_2.pth")
    assert {path.name for path in (tmp_path / "w").glob("*.pth")} == {"iter_2.pth"}
