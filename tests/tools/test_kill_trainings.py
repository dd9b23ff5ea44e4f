"""What the kill experiment reads from logs and files, without killing anything."""

from pathlib import Path

import pytest
from helpers.tools import load_tool

from tvit_seg.errors import CheckpointError
from tvit_seg.weights.io import write_checkpoint

kill = load_tool("tools/dev/kill_trainings.py")

TRAIN = "11/26 - mmengine - INFO - Iter(train) [  {}/400]  lr: 1.0000e-04  loss: 3.1\n"
VAL = "11/26 - mmengine - INFO - Iter(val) [{}/8]    eta: 0:00:01  time: 0.1\n"
RESULT = "11/26 - mmengine - INFO - Iter(val) [8/8]    aAcc: 20.0  mIoU: 4.0  mAcc: 15.0\n"
RESUMED = "11/26 - mmengine - INFO - resumed epoch: 0, iter: 6\n"


@pytest.mark.parametrize(
    ("text", "found", "validating"),
    [
        ("", [], False),
        (RESUMED, [6], False),
        (RESUMED + TRAIN.format(7) + VAL.format(1) + VAL.format(2), [6, 7], True),
        (TRAIN.format(3) + VAL.format(8) + RESULT, [0, 3], False),
        (VAL.format(8) + RESULT + TRAIN.format(4), [0, 4], False),
    ],
)
def test_logs(tmp_path, text, found, validating):
    log = tmp_path / "0.log"
    log.write_text(text)
    assert kill.iterations(log) == found
    assert kill.is_validating(log) == validating


def test_the_best_weights_stay(tmp_path):
    known = set()
    kill.check_best(tmp_path, known)
    path = tmp_path / "best_mIoU_iter_3.pth"
    write_checkpoint({"state_dict": {}}, path)
    kill.check_best(tmp_path, known)
    path = path.rename(tmp_path / "best_mIoU_iter_6.pth")
    kill.check_best(tmp_path, known)
    (tmp_path / "best_mAcc_iter_6.pth").touch()
    with pytest.raises(CheckpointError, match="best_mAcc_iter_6"):
        kill.check_best(tmp_path, known)
    (tmp_path / "best_mAcc_iter_6.pth").unlink()
    path.unlink()
    with pytest.raises(SystemExit, match="the best weights by mIoU are gone"):
        kill.check_best(tmp_path, known)


def test_kinds_of_unfinished_files():
    checkpoint, best = Path("iter_3.pth.7.tmp"), Path("best_mIoU_iter_3.pth.7.tmp")
    assert kill.of_kind(True, {checkpoint, best}) == {best}
    assert kill.of_kind(False, {checkpoint, best}) == {checkpoint}
