"""The last good checkpoint and the best one are there at any moment."""

import os
from contextlib import contextmanager

import pytest
import torch
from helpers.classification import config, image_folder
from mmengine.hooks import Hook

from tvit_seg.engine import ThinkingRunner
from tvit_seg.engine.cli import build_runner
from tvit_seg.engine.hooks import checkpoint
from tvit_seg.engine.hooks.checkpoint import SafeCheckpointHook
from tvit_seg.errors import ConfigError
from tvit_seg.weights.io import read_checkpoint

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("data") / "images")


def saving(**options):
    return {"default_hooks.checkpoint": dict(type="CheckpointHook", interval=1, **options)}


def make(root, work_dir, epochs=4, **changes):
    work_dir.mkdir(exist_ok=True)
    changes["train_cfg"] = dict(type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=1)
    return ThinkingRunner.from_cfg(config(root, work_dir, **changes))


class Improves(Hook):
    """Every validation is better than the one before."""

    priority = "VERY_HIGH"

    def __init__(self, score=None):
        self.score = score

    def after_val_epoch(self, runner, metrics=None):
        metrics["score"] = self.score() if self.score else runner.epoch


class Watches(Hook):
    """Lists the files there are while one is written."""

    def __init__(self):
        self.seen = []

    def before_save_checkpoint(self, runner, checkpoint):
        names = [name for name in os.listdir(runner.work_dir) if name.endswith(".pth")]
        self.seen.append(sorted(names))


@pytest.mark.parametrize("key", ["mFscore", ["mIoU", "score"]])
def test_a_key_whose_rule_is_unknown_is_refused_when_built(root, tmp_path, key):
    message = r"default_hooks\.checkpoint .*: save_best=.* write rule='greater'"
    with pytest.raises(ConfigError, match=message):
        build_runner(config(root, tmp_path, runner_type="ThinkingRunner", **saving(save_best=key)))
    with pytest.raises(ConfigError, match="rule must be greater, less or None"):
        build_runner(
            config(
                root, tmp_path, runner_type="ThinkingRunner", **saving(save_best=key, rule="max")
            )
        )


def test_older_ones_go_when_the_new_one_is_complete(root, tmp_path):
    best = dict(save_best="score", rule="greater")
    runner = make(root, tmp_path / "w", **saving(max_keep_ckpts=2, **best))
    watches = Watches()
    runner.register_hook(Improves())
    runner.register_hook(watches)
    runner.train()
    for kind, least in (("best_", 1), ("epoch_", 2)):
        counts = [sum(name.startswith(kind) for name in names) for names in watches.seen]
        first = next(i for i, count in enumerate(counts) if count >= least)
        assert min(counts[first:]) == least
    assert sum(name.startswith("best_") for name in os.listdir(tmp_path / "w")) == 1
    left = sorted(name for name in os.listdir(tmp_path / "w") if name.startswith("epoch_"))
    assert left == ["epoch_3.pth", "epoch_4.pth"]


@pytest.mark.parametrize("which", ["epoch_", "best_"])
def test_nothing_is_lost_when_writing_fails(root, tmp_path, monkeypatch, which):
    best = dict(save_best="score", rule="greater")
    runner = make(root, tmp_path / "w", **saving(max_keep_ckpts=2, **best))
    runner.register_hook(Improves())
    whole = torch.save
    kept = {}

    def full_disk(obj, file, *args, **kwargs):
        if runner.epoch >= 3 and which in str(current[-1]):
            kept.update({p.name: p.read_bytes() for p in (tmp_path / "w").glob("*.pth")})
            raise OSError(28, "No space left on device")
        whole(obj, file, *args, **kwargs)

    current = []
    save = ThinkingRunner.save_checkpoint

    def save_checkpoint(self, out_dir, filename, *args, **kwargs):
        current.append(filename)
        save(self, out_dir, filename, *args, **kwargs)

    monkeypatch.setattr(ThinkingRunner, "save_checkpoint", save_checkpoint)
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match=r"cannot be written, \d+ MB are free .*unharmed.*No space"):
        runner.train()
    assert {p.name: p.read_bytes() for p in (tmp_path / "w").glob("*.pth")} == kept
    assert any(name.startswith("best_") for name in kept)
    assert sum(name.startswith("epoch_") for name in kept) >= 2
    assert not list((tmp_path / "w").glob("*.tmp"))
    for name in kept:
        read_checkpoint(tmp_path / "w" / name)


def test_at_least_two_are_kept():
    with pytest.warns(UserWarning, match="max_keep_ckpts=1: 2 checkpoints are kept"):
        hook = SafeCheckpointHook(max_keep_ckpts=1)
    assert hook.max_keep_ckpts == 2
    assert SafeCheckpointHook(max_keep_ckpts=3).max_keep_ckpts == 3
    assert SafeCheckpointHook(max_keep_ckpts=-1).max_keep_ckpts == -1


def test_the_pointer_is_whole(root, tmp_path, monkeypatch):
    """mmengine empties it before it writes."""
    seen = []

    @contextmanager
    def replacing(path):
        with whole(path) as temporary:
            yield temporary
            seen.append(path.read_text() if path.exists() else None)

    whole = checkpoint.replacing
    monkeypatch.setattr(checkpoint, "replacing", replacing)
    make(root, tmp_path / "w", epochs=2).train()
    names = [text and os.path.basename(text) for text in seen]
    assert names == [None, "epoch_1.pth", "epoch_1.pth", "epoch_2.pth"]  # each step is validated
    left = tmp_path / "w" / "last_checkpoint.123.tmp"
    left.touch()
    make(root, tmp_path / "w", epochs=2, resume=True).train()
    assert not left.exists()


def test_a_best_one_of_the_same_name_stays(root, tmp_path):
    """mmengine numbers it by the epoch, which stays 0 where iterations count."""
    changes = saving(save_best="score", rule="greater")
    work_dir = tmp_path / "w"
    work_dir.mkdir()
    cfg = config(root, work_dir, **changes)
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=1)
    cfg.train_dataloader.sampler = dict(type="InfiniteSampler", shuffle=True)
    runner = ThinkingRunner.from_cfg(cfg)
    runner.register_hook(Improves(lambda: runner.iter))
    runner.train()
    best = torch.load(work_dir / "best_score_epoch_0.pth", weights_only=True)
    assert best["meta"]["iter"] == 2


@pytest.mark.parametrize("kind", ["folder", "elsewhere.pth"])
def test_a_checkpoint_cannot_have_other_files_removed(root, tmp_path, kind):
    """mmengine removes whatever a resumed file calls the best checkpoint so far."""
    victim = tmp_path / "precious" / kind
    victim.parent.mkdir()
    if kind == "folder":
        victim.mkdir()
        (victim / "thesis.txt").touch()
    else:
        victim.touch()
    best = dict(save_best="score", rule="greater")
    first = make(root, tmp_path / "w", epochs=2, **saving(**best))
    first.register_hook(Improves())
    first.train()
    crafted = torch.load(tmp_path / "w" / "epoch_2.pth", weights_only=True)
    assert "best_ckpt" in crafted["message_hub"]["runtime_info"]
    crafted["message_hub"]["runtime_info"].update(best_ckpt=str(victim), best_score=0)
    torch.save(crafted, tmp_path / "crafted.pth")
    again = make(
        root, tmp_path / "w", load_from=str(tmp_path / "crafted.pth"), resume=True, **saving(**best)
    )
    again.register_hook(Improves())
    again.train()
    assert victim.exists()
    assert kind != "folder" or (victim / "thesis.txt").exists()
