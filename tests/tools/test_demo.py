import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("tvit_seg_demo", ROOT / "tools" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def picture(seed=0, size=(96, 96)):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


def test_folder(demo, tmp_path, capsys):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in" / "a.png"), picture())
    cv2.imwrite(str(tmp_path / "in" / "deep" / "b.jpg"), picture(1, (64, 120)))
    (tmp_path / "in" / "notes.txt").write_text("not a picture")
    demo.main([str(tmp_path / "in"), "--out-dir", str(tmp_path / "out")])
    # picture and prediction, enlarged, with legend and caption
    assert cv2.imread(str(tmp_path / "out" / "a.png")).shape == (288 + 44 + 28, 2 * 288, 3)
    assert cv2.imread(str(tmp_path / "out" / "deep" / "b.jpg")).shape == (256 + 22 + 28, 2 * 480, 3)
    assert "average GMACs of a picture" in capsys.readouterr().out


@pytest.mark.parametrize("amp", [[], ["--amp"]])
@pytest.mark.parametrize(("threshold", "stage"), [("0", "1"), ("10", "0")])
def test_threshold(demo, tmp_path, capsys, threshold, stage, amp):
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    options = ["--threshold", threshold, "--out-dir", str(tmp_path), *amp]
    demo.main([str(tmp_path / "a.png"), *options])
    assert f"|   {stage}   |       1       |   100.0   |" in capsys.readouterr().out


def test_tokens_that_survived(demo, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    config = demo.ROOT / "configs/quickstart/thinkingvit-pruned_scenes-96x96.py"
    weights = tmp_path / "pruned.pth"
    torch.save({"state_dict": MODELS.build(Config.fromfile(config).model).state_dict()}, weights)
    demo.main(
        [str(tmp_path / "a.png"), str(config), str(weights), "--out-dir", str(tmp_path / "out")]
    )
    # picture, prediction and what is left after each of three prunings
    assert cv2.imread(str(tmp_path / "out" / "a.png")).shape == (288 + 22 + 28, 5 * 288, 3)


def test_windows_and_a_config(demo, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture(0, (96, 144)))
    slide = ("mode=slide", "crop_size=(96,96)", "stride=(96,48)")
    options = [f"model.test_cfg.{option}" for option in slide]
    files = [str(demo.CONFIG), str(demo.CHECKPOINT)]
    out = ["--out-dir", str(tmp_path / "out")]
    demo.main([str(tmp_path / "a.png"), *files, *out, "--cfg-options", *options])
    drawn = cv2.imread(str(tmp_path / "out" / "a.png"))
    assert drawn.shape == (288 + 22 + 28, 3 * 432, 3)  # a map of the windows too


def test_video(demo, tmp_path):
    codec = cv2.VideoWriter_fourcc(*"mp4v")
    video = cv2.VideoWriter(str(tmp_path / "in.mp4"), codec, 10, (96, 96))
    if not video.isOpened():
        pytest.skip("this OpenCV writes no mp4 files")
    for seed in range(4):
        video.write(picture(seed))
    video.release()
    demo.main([str(tmp_path / "in.mp4"), "--out-dir", str(tmp_path / "out")])
    drawn = cv2.VideoCapture(str(tmp_path / "out" / "in.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    assert drawn.get(cv2.CAP_PROP_FPS) == 10
    assert drawn.read()[1].shape == (288 + 44 + 28, 2 * 288, 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nowhere.png", [], "nowhere.png does not exist"),
        ("empty", [], "empty holds no picture"),
        ("bad.png", [], "bad.png: corrupt or truncated: not an image"),
        ("bad.mp4", [], "bad.mp4 cannot be read as a video"),
        ("good.png", ["--device", "abacus"], "--device abacus: "),
        ("good.png", ["config.py"], "a config needs its checkpoint"),
        ("good.png", ["--threshold", "-1"], "--threshold must be a number >= 0"),
        ("good.png", ["--opacity", "2"], "must lie in [0, 1]"),
        ("good.png", ["--cfg-options", "model.backbone.num_layers=2"], "size mismatch|Unexpected"),
    ],
)
def test_mistakes(demo, tmp_path, capsys, name, options, message):
    (tmp_path / "empty").mkdir()
    for bad in ("bad.png", "bad.mp4"):
        (tmp_path / bad).write_bytes(b"nothing of the kind")
    cv2.imwrite(str(tmp_path / "good.png"), picture())
    with pytest.raises(SystemExit) as error:
        demo.main([str(tmp_path / name), *options, "--out-dir", str(tmp_path / "out")])
    printed = f"{error.value}{capsys.readouterr().err}"
    assert any(part in printed for part in message.split("|"))
    assert not (tmp_path / "out").exists()
