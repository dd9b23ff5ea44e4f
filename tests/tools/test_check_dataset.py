"""tools/check_dataset.py: report, picture, exit status."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tvit_seg.datasets.scenes import write_scenes

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py")
CLASSES = ["--classes", "7"]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location(
        "tvit_seg_check_dataset", ROOT / "tools/check_dataset.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def scenes(tmp_path):
    write_scenes(tmp_path / "scenes", 6, 4, (32, 32), 0)
    return tmp_path / "scenes"


def folders(root):
    return ["--images", str(root / "img_dir/train"), "--labels", str(root / "ann_dir/train")]


def test_a_config(tool, scenes, tmp_path, capsys):
    options = [f"{part}_dataloader.dataset.data_root={scenes}" for part in ("train", "val", "test")]
    figures = tmp_path / "found.json"
    tool.main([CONFIG, "--json", str(figures), "--cfg-options", *options])
    printed = capsys.readouterr().out
    assert "train: 6 samples are fine" in printed
    assert "val: 4 samples are fine" in printed
    assert "nothing is wrong" in printed
    train, val = json.loads(figures.read_text())
    assert sum(train["pixels"]) + train["ignored"] == 6 * 32 * 32
    assert val["problems"] == {}


def test_folders_with_faults(tool, scenes, tmp_path, capsys):
    labels = sorted((scenes / "ann_dir/train").iterdir())
    Image.fromarray(np.full((32, 32), 99, np.uint8)).save(labels[0])
    Image.fromarray(np.zeros((16, 32), np.uint8)).save(labels[1])
    labels[2].unlink()
    plot = tmp_path / "plot.png"
    with pytest.raises(SystemExit) as stopped:
        tool.main([*folders(scenes), *CLASSES, "--plot", str(plot), "--show", "1"])
    assert stopped.value.code == 1
    printed = capsys.readouterr().out
    assert "3 problems" in printed
    assert "1 x images without label" in printed
    assert "2 x image or label" in printed
    assert "label values 99 not allowed; allowed are 0-6, 255" in printed
    assert "... and 1 more" in printed
    assert plot.exists()


def test_convert_colours(tool, tmp_path, capsys):
    for folder in ("images", "rgb"):
        (tmp_path / folder).mkdir()
        pixels = [[(9, 9, 9), (0, 200, 0)], [(7, 7, 7), (0, 200, 0)]]
        Image.fromarray(np.array(pixels, np.uint8)).save(tmp_path / folder / "a.png")
    command = ["--images", str(tmp_path / "images"), "--labels", str(tmp_path / "rgb")]
    command += ["--classes", "road", "tree", "--convert-colours", str(tmp_path / "maps")]
    tool.main([*command, "--colours", "9,9,9", "0,200,0"])
    printed = capsys.readouterr().out
    assert "colour 7,7,7 is of no class: 1 pixels are ignored" in printed
    assert "data: 1 samples are fine" in printed
    assert np.asarray(Image.open(tmp_path / "maps/a.png")).tolist() == [[0, 1], [255, 1]]
    with pytest.raises(SystemExit, match="2"):
        tool.main([*command, "--colours", "9,9,9"])
    assert "--colours: 1, for 2 classes" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        tool.main(command)


def test_class_folders(tool, tmp_path, capsys):
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "train" / name / "0.png")
    tool.main(["--images", str(tmp_path / "train")])
    assert "nothing is wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a config, or folders"),
        ([CONFIG, "--images", "a"], "name a config, or folders"),
        (["--images", "a", "--labels", "b"], "--labels needs --classes"),
        (["--images", "a", "--labels", "b", "--classes", "256"], "--classes: 256, must be between"),
        (["--images", "a", "--plot", "b.xyz"], "--plot b.xyz must end in one of .png, .jpg"),
        (["--images", "a", "--show", "0"], "--show 0 must be at least 1"),
        (["--images", "nowhere", "--labels", "b", *CLASSES], "not found: 'nowhere'"),
        (["--images", "nowhere/train"], "not found: 'nowhere'"),
    ],
)
def test_bad_arguments(tool, arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        tool.main(arguments)
    assert stopped.value.code
    said = capsys.readouterr().err + str(stopped.value)
    assert re.search(message, said)


def test_images_without_labels(tool, scenes, capsys):
    tool.main(["--images", str(scenes / "img_dir/train")])
    assert "6 samples are fine\nremark: no labels" in capsys.readouterr().out
    option = f"test_dataloader.dataset.data_root={scenes}"
    for split in ("train", "val"):
        option = [*([option] if isinstance(option, str) else option)]
        option.append(f"{split}_dataloader.dataset.data_root={scenes}")
    prefix = "test_dataloader.dataset.data_prefix"
    tool.main([CONFIG, "--cfg-options", *option, f"{prefix}._delete_=True",
               f"{prefix}.img_path=img_dir/val"])  # fmt: skip
    assert "test: 4 samples are fine\nremark: no labels" in capsys.readouterr().out
