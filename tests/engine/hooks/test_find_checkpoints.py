"""Finding the checkpoint to resume from."""

import os

import pytest
import torch
from mmengine.config import Config

from tvit_seg.engine.hooks.checkpoint import (
    checkpoint_folders,
    find_checkpoints,
    good_checkpoint,
    latest_checkpoint,
)
from tvit_seg.errors import CheckpointError
from tvit_seg.weights.io import write_checkpoint


def test_latest_checkpoint_with_a_damaged_pointer(tmp_path):
    for i, name in enumerate(["iter_9.pth", "iter_10.pth", "best_mIoU_iter_10.pth"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (i, i))
    for pointer in (b"", b"/moved/iter_11.pth", b"\0" * 20, b"\xff\xfe", b"x" * 5000):
        (tmp_path / "last_checkpoint").write_bytes(pointer)
        assert latest_checkpoint(tmp_path) == tmp_path / "iter_10.pth"
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_9.pth"))
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_9.pth"


def test_checkpoints_are_ordered_by_their_numbers(tmp_path):
    """Copying a folder, or unpacking it, gives its files times in any order."""
    names = ["iter_100", "iter_90", "iter_final", "epoch_2", "epoch_10", "epoch_1"]
    for i, name in enumerate(names):
        (tmp_path / f"{name}.pth").touch()
        os.utime(tmp_path / f"{name}.pth", (i, i))
    (tmp_path / "iter_7.pth").symlink_to("/nowhere")
    found = [path.stem for path in find_checkpoints(tmp_path)]
    assert found == ["epoch_10", "epoch_2", "epoch_1", "iter_100", "iter_90", "iter_final"]


def test_what_is_no_file_is_no_checkpoint(tmp_path):
    write_checkpoint({"state_dict": {"w": torch.zeros(1)}}, tmp_path / "iter_2.pth")
    (tmp_path / "iter_7.pth").symlink_to("/nowhere")
    assert good_checkpoint(tmp_path)[0] == tmp_path / "iter_2.pth"
    (tmp_path / "iter_9.pth").mkdir()
    with pytest.warns(UserWarning, match=r"iter_2\.pth is the latest good .*since\n.*iter_9\.pth"):
        assert good_checkpoint(tmp_path)[0] == tmp_path / "iter_2.pth"


@pytest.mark.parametrize("pointer", ["", None, "moved"])
def test_checkpoints_in_another_folder(tmp_path, pointer):
    """``CheckpointHook(out_dir=...)`` saves there, and the pointer stays in the work folder."""
    work_dir, out = tmp_path / "w", tmp_path / "out" / "w"
    work_dir.mkdir()
    write_checkpoint({"state_dict": {"w": torch.zeros(1)}}, out / "iter_5.pth")
    if pointer is not None:
        (work_dir / "last_checkpoint").write_text(pointer)
    hook = dict(type="CheckpointHook", out_dir=str(tmp_path / "out"))
    cfg = Config(dict(default_hooks=dict(checkpoint=hook)))
    path, content = good_checkpoint(*checkpoint_folders(cfg, str(work_dir)))
    assert path == out / "iter_5.pth"
    assert list(content["state_dict"]) == ["w"]


def test_damaged_checkpoints(tmp_path):
    assert good_checkpoint(tmp_path) is None
    for step in (1, 2):
        (tmp_path / f"iter_{step}.pth").write_bytes(b"half of a file")
    with pytest.raises(CheckpointError, match="none of 2 checkpoints"):
        good_checkpoint(tmp_path)
