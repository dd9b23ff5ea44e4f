"""What the kill experiment reads from logs and files, without killing anything."""

import importlib.util
from pathlib import Path

import pytest

from tvit_seg.errors import CheckpointError
from tvit_seg.weights.io import write_checkpoint

TOOL = Path(__file__).parents[2] / "tools/dev/kill_trainings.py"

TRAIN = "11/26 - mmengine - INFO - Iter(train) [  {}/400]  lr: 1.0000e-04  loss: 3.1\n"
VAL = "11/26 - mmengine - INFO - Iter(val) [{}/8]    eta: 0:00:01  time: 0.1\n"
RESULT = "11/26 - mmengine - INFO - Iter(val) [8/8]    aAcc: 20.0  mIoU: 4.0  mAcc: 15.0\n"
RESUMED = "11/26 - mmengine - INFO - resumed epoch: 0, iter: 6\n"


@pytest.fixture(scope="module")
def kill():
    spec = importlib.util.spec_from_file_location("kill_trainings", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "seen", "validating"),
    [
        ("", [], False),
        (RESUMED, [6], False),
        (TRAIN.format(1) + TRAIN.format(2), [0, 1, 2], False),
        (RESUMED + VAL.format(1), [6], True),
        (RESUMED + TRAIN.format(7) + VAL.format(1) + VAL.format(2), [6, 7], True),
        (TRAIN.format(3) + VAL.format(8) + RESULT, [0, 3], False),
        (VAL.format(8) + RESULT + TRAIN.format(4), [0, 4], False),
    ],
)
def test_logs(kill, tmp_path, text, seen, validating):
    log = tmp_path / "0.log"
    log.write_text(text)
    assert kill.iterations(log) == seen
    assert kill.is_validating(log) == validating


def test_the_best_weights_stay(kill, tmp_path):
    best = kill.BestWeights(tmp_path)
    best.look()
    path = tmp_path / "best_mIoU_iter_3.pth"
    write_checkpoint({"state_dict": {}}, path)
    best.look()
    path.rename(tmp_path / "best_mIoU_iter_6.pth")
    best.look()
    (tmp_path / "best_mAcc_iter_6.pth").touch()
    with pytest.raises(CheckpointError, match="best_mAcc_iter_6"):
        best.look()
    (tmp_path / "best_mAcc_iter_6.pth").unlink()
    (tmp_path / "best_mIoU_iter_6.pth").unlink()
    with pytest.raises(SystemExit, match="the best weights by mIoU are gone"):
        best.look()


def test_what_is_being_written(kill):
    files = {Path("iter_3.pth.7.tmp"), Path("best_mIoU_iter_3.pth.7.tmp")}
    assert kill._of(True, files) == {Path("best_mIoU_iter_3.pth.7.tmp")}
    assert kill._of(False, files) == {Path("iter_3.pth.7.tmp")}
