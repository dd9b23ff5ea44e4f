"""Corrupt images in training are passed over and counted, or end it with their path."""

import re

import pytest
from helpers.classification import config, image_folder

from tvit_seg.engine import ThinkingRunner
from tvit_seg.errors import DataError

pytestmark = pytest.mark.integration

BAD = "train/bee/1.png"


@pytest.fixture
def root(tmp_path):
    root = image_folder(tmp_path / "images")
    (root / BAD).write_bytes((root / BAD).read_bytes()[:60])
    return root


def make(root, work_dir, **changes):
    work_dir.mkdir(exist_ok=True)
    return ThinkingRunner.from_cfg(config(root, work_dir, **changes))


SKIP = {"train_dataloader.dataset.skip_corrupt": True, "log_level": "WARNING"}
WORKERS = {"train_dataloader.num_workers": 2}


@pytest.mark.parametrize("workers", [{}, WORKERS], ids=["main", "workers"])
def test_they_are_passed_over_and_counted(root, tmp_path, capsys, workers):
    make(root, tmp_path / "w", **SKIP, **workers).train()
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if "skipped" in line]
    assert sum(f"skipped {root / BAD}: corrupt or truncated" in line for line in lines) == 1
    counted = re.search(r"corrupt images were skipped (\d+) times so far", lines[-1])
    assert int(counted[1]) >= 2  # two epochs; the one drawn instead may be the same


@pytest.mark.parametrize("workers", [{}, WORKERS], ids=["main", "workers"])
def test_without_it_training_stops(root, tmp_path, workers):
    with pytest.raises(DataError, match=r"bee/1\.png: corrupt or truncated"):
        make(root, tmp_path / "w", **workers).train()


@pytest.mark.parametrize("loader", ["val_dataloader", "test_dataloader"])
def test_evaluation_sees_every_image(root, tmp_path, loader):
    with pytest.raises(ValueError, match="skip_corrupt is for training"):
        make(root, tmp_path / "w", **{f"{loader}.dataset.skip_corrupt": True})
    bad = root / "val/ant/0.png"
    bad.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"val/ant/0\.png: corrupt or truncated: not an image"):
        make(root, tmp_path / "w2", **SKIP).train()
