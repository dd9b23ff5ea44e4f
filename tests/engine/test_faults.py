"""Trainings that fail say why in one line, keep what they have, and go on."""

import re
import resource
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.classification import config, image_folder
from mmengine.hooks import Hook

from tvit_seg.engine import ThinkingRunner
from tvit_seg.engine.cli import friendly_errors
from tvit_seg.errors import CheckpointError
from tvit_seg.weights.io import read_checkpoint

pytestmark = pytest.mark.integration

TOOL = Path(__file__).parents[2] / "tools" / "train.py"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """A work folder after two epochs."""
    work_dir = tmp_path_factory.mktemp("trained") / "w"
    work_dir.mkdir()
    ThinkingRunner.from_cfg(config(root, work_dir)).train()
    return work_dir


@pytest.fixture
def work_dir(trained, tmp_path):
    """A copy of that, as if the training had been moved there."""
    shutil.copytree(trained, tmp_path / "w")
    (tmp_path / "w" / "last_checkpoint").write_text(str(tmp_path / "w" / "epoch_2.pth"))
    return tmp_path / "w"


def command(root, work_dir, epochs=3):
    """A command line that goes on for an epoch."""
    path = work_dir.parent / "config.py"
    cfg = config(root, work_dir)
    cfg.train_cfg.max_epochs = epochs
    cfg.dump(path)
    return ["train.py", str(path), "--resume", "--skip-data-check", "--work-dir", str(work_dir)]


def train(monkeypatch, argv):
    monkeypatch.setattr(sys, "argv", argv)
    runpy.run_path(str(TOOL), run_name="__main__")


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def test_a_full_disk(root, work_dir):
    old = {path.name: path.read_bytes() for path in work_dir.glob("*.pth")}
    limit = len(old["epoch_2.pth"]) // 2
    done = subprocess.run(
        [sys.executable, TOOL, *command(root, work_dir)[1:]],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert re.match(r"error: checkpoint .*epoch_3\.pth cannot be written, \d+ MB are free", last)
    assert "Traceback" not in done.stderr
    assert {path.name: path.read_bytes() for path in work_dir.glob("*.pth")} == old
    assert not list(work_dir.glob("*.tmp"))


def test_an_unwritable_work_folder_ends_it_at_once(root, work_dir, monkeypatch):
    (work_dir / "file").touch()
    argv = command("no data is looked for", work_dir)
    with pytest.raises(SystemExit, match=r"error: .*file"):
        train(monkeypatch, [*argv[:-1], str(work_dir / "file" / "w")])


class Vanishes(Hook):
    """Removes the data in the first epoch that is trained."""

    def __init__(self, root):
        self.root = root

    def before_train_epoch(self, runner):
        shutil.rmtree(self.root)


def test_data_that_vanishes(root, work_dir, tmp_path):
    shutil.copytree(root, tmp_path / "images")
    cfg = config(tmp_path / "images", work_dir, resume=True)
    cfg.train_cfg.max_epochs = 3
    cfg.train_dataloader.num_workers = 2
    runner = ThinkingRunner.from_cfg(cfg)
    runner.register_hook(Vanishes(tmp_path / "images"))
    with pytest.raises(SystemExit) as ended, friendly_errors():
        runner.train()
    text = str(ended.value)
    assert re.fullmatch(r"error: \S+/train/\w+/\d\.png cannot be read: No such file.*", text)
    assert sorted(path.name for path in work_dir.glob("*.pth")) == ["epoch_1.pth", "epoch_2.pth"]


def test_training_goes_on_from_the_one_before(root, work_dir, monkeypatch):
    cut(work_dir / "epoch_2.pth")
    with pytest.warns(UserWarning, match=r"epoch_1\.pth is the latest good"):
        train(monkeypatch, command(root, work_dir))
    assert torch.load(work_dir / "epoch_3.pth", weights_only=True)["meta"]["iter"] == 9
    read_checkpoint(work_dir / "epoch_2.pth")  # written anew


def test_without_a_good_one_training_does_not_start_again(root, work_dir, monkeypatch):
    for path in work_dir.glob("*.pth"):
        cut(path)
    with pytest.raises(SystemExit, match=r"error: none of 2 checkpoints in \S+ can be read: "):
        train(monkeypatch, command(root, work_dir))
    (work_dir / "last_checkpoint").unlink()
    cfg = config(root, work_dir, resume=True)
    with pytest.raises(CheckpointError, match="none of 2 checkpoints"):
        ThinkingRunner.from_cfg(cfg).train()


def test_a_damaged_one_that_is_named_is_no_other(root, work_dir, monkeypatch):
    cut(work_dir / "epoch_2.pth")
    argv = command(root, work_dir)
    argv.insert(argv.index("--resume") + 1, str(work_dir / "epoch_2.pth"))
    with pytest.raises(SystemExit, match=r"error: checkpoint \S*epoch_2\.pth .*is truncated"):
        train(monkeypatch, argv)


def test_an_empty_work_folder_starts_at_the_beginning(root, tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "last_checkpoint").touch()
    runner = ThinkingRunner.from_cfg(config(root, tmp_path / "w", resume=True))
    runner.load_or_resume()
    assert runner.iter == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(meta=dict(epoch=9, iter=27)), r"meta\.epoch=9 is beyond the end .*max_epochs=2"),
        (dict(optimizer=dict(state={}, param_groups=[])), "training state does not fit"),
        (dict(message_hub=[1]), "training state does not fit"),
    ],
    ids=["beyond", "optimizer", "hub"],
)
def test_a_training_state_that_does_not_fit(root, work_dir, change, message):
    checkpoint = torch.load(work_dir / "epoch_1.pth", weights_only=True)
    torch.save({**checkpoint, **change}, work_dir / "crafted.pth")
    cfg = config(root, work_dir, resume=True, load_from=str(work_dir / "crafted.pth"))
    with pytest.raises(CheckpointError, match=rf"crafted\.pth: .*{message}"):
        ThinkingRunner.from_cfg(cfg).train()
