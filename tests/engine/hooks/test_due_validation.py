"""A training that was killed before or in a validation goes on as if it had not been."""

from functools import cache

import pytest
import torch
from helpers.classification import config, image_folder
from mmengine.hooks import Hook

from tvit_seg.engine import ThinkingRunner
from tvit_seg.engine.hooks.resume import VALIDATED

pytestmark = pytest.mark.integration

LOOPS = {
    "epochs": dict(train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=5, val_interval=2)),
    "iterations": {
        "train_cfg": dict(type="IterBasedTrainLoop", max_iters=5, val_interval=2),
        "train_dataloader.sampler": dict(type="InfiniteSampler", shuffle=True),
        "default_hooks.checkpoint.by_epoch": False,
    },
}
PLATEAU = dict(type="ReduceOnPlateauLR", monitor="score", rule="greater", patience=0, factor=0.1)
BEST = {
    "param_scheduler": [PLATEAU],
    "default_hooks.checkpoint.save_best": "score",
    "default_hooks.checkpoint.rule": "greater",
}


WORSE, BETTER = {2: 0.5, 4: 0.4, 5: 0.6}, {2: 0.5, 4: 0.6, 5: 0.7}


class Killed(BaseException):
    """Nothing catches it."""


class Scores(Hook):
    """Gives a score to every validation, notes it, and may be the end of one."""

    priority = "VERY_HIGH"

    def __init__(self, scores, ends=None, steps=()):
        self.scores, self.ends, self.steps = scores, ends, steps
        self.seen = []

    def _step(self, runner):
        return runner.epoch if runner.train_loop.max_epochs > 1 else runner.iter

    def before_val(self, runner):
        if self.ends == "before" and self._step(runner) in self.steps:
            raise Killed

    def after_val_epoch(self, runner, metrics):
        self.seen.append(self._step(runner))
        metrics["score"] = self.scores[self._step(runner)]

    def before_save_checkpoint(self, runner, checkpoint):
        validating = self.seen[-1:] == [self._step(runner)]
        best = "optimizer" not in checkpoint
        if (
            self.ends == ("best" if best else "after")
            and validating
            and self.seen[-1] in self.steps
        ):
            raise Killed


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def uninterrupted(root, tmp_path_factory):
    """Trains, once for each loop and scores."""

    @cache
    def run(loop, better):
        work_dir = tmp_path_factory.mktemp("whole") / "w"
        runner, seen = train(root, work_dir, loop, BETTER if better else WORSE)
        assert seen == [2, 4, 5]
        return runner, files(work_dir)

    return run


def train(root, work_dir, loop, *hook, resume=False):
    work_dir.mkdir(exist_ok=True)
    cfg = config(root, work_dir, resume=resume, **BEST, **LOOPS[loop])
    runner = ThinkingRunner.from_cfg(cfg)
    scores = Scores(*hook)
    runner.register_hook(scores)
    try:
        runner.train()
    except Killed:
        assert not resume
    else:
        assert resume or not scores.ends
    return runner, scores.seen


def files(work_dir):
    return {path.name: torch.load(path, weights_only=True) for path in work_dir.glob("*.pth")}


@pytest.mark.parametrize(
    ("loop", "ends", "better", "step"),
    [
        ("epochs", "before", True, 4),
        ("epochs", "after", False, 4),
        ("iterations", "before", False, 2),
        ("iterations", "best", True, 4),
        ("iterations", "after", True, 2),
    ],
)
def test_nothing_of_a_validation_is_lost(root, tmp_path, uninterrupted, loop, ends, better, step):
    scores = BETTER if better else WORSE
    whole, ours = uninterrupted(loop, better)
    assert whole.optim_wrapper.get_lr()["base_lr"] == [1e-3 if better else 1e-4]
    train(root, tmp_path / "parts", loop, scores, ends, [step])
    resumed, seen = train(root, tmp_path / "parts", loop, scores, resume=True)
    assert seen == [2, 4, 5][step // 4 :]
    assert resumed.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()
    theirs = files(tmp_path / "parts")
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(
            ours[name]["state_dict"], theirs[name]["state_dict"], rtol=0, atol=0
        )
        best = [of[name]["message_hub"]["runtime_info"].get("best_score") for of in (ours, theirs)]
        assert best[0] == best[1]


@pytest.mark.parametrize("loop", ["iterations"])
def test_what_is_done_is_not_done_again(root, tmp_path, loop):
    train(root, tmp_path / "w", loop, WORSE)
    _, seen = train(root, tmp_path / "w", loop, {}, resume=True)
    assert seen == []
    last = torch.load((tmp_path / "w" / "last_checkpoint").read_text(), weights_only=True)
    assert last["message_hub"]["runtime_info"][VALIDATED] == 5
    assert last["message_hub"]["runtime_info"]["best_score"] == 0.6
    # of a checkpoint that says nothing, nothing is known
    del last["message_hub"]["runtime_info"][VALIDATED]
    torch.save(last, (tmp_path / "w" / "last_checkpoint").read_text())
    _, seen = train(root, tmp_path / "w", loop, {}, resume=True)
    assert seen == []
