import json

import cv2
import pytest
from helpers.deployment import needs_onnx, noise
from helpers.tools import ROOT, load_tool

from tvit_seg.datasets.scenes import write_scenes

CONFIG = str(ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py")
SMALL = ["model.backbone.num_layers=1", "model.backbone.pretrained=None"]


@pytest.fixture(scope="module")
def tool():
    return load_tool("tools/export_onnx.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images."""
    root = tmp_path_factory.mktemp("images")
    for i, image in enumerate(noise(2, (64, 80))):
        cv2.imwrite(str(root / f"{i}.png"), image)
    return root


@needs_onnx
@pytest.mark.integration
def test_everything(tool, tmp_path, capsys):
    """Random weights of the quickstart's model: graphs, int8, mIoU of all, times."""
    data, out = tmp_path / "scenes", tmp_path / "out"
    write_scenes(data, num_train=1, num_val=3, size=(64, 64))
    options = [*SMALL, f"val_dataloader.dataset.data_root={data}"]
    command = [CONFIG, "--out-dir", str(out), "--int8", "--benchmark", "2", "--rounds", "1"]
    tool.main([*command, "--threads", "1", "--cfg-options", *options])
    printed = capsys.readouterr().out
    assert "no checkpoint: the weights are random" in printed
    assert "images: any number; pixels: 64 x 64" in printed
    assert "onnx, int8" in printed
    assert "GMACs / all think" in printed
    names = {"stage0.onnx", "stage1.onnx", "decode.onnx", "manifest.json"}
    assert {path.name for path in out.iterdir()} == {*names, "int8"}
    assert {path.name for path in (out / "int8").iterdir()} == names
    preprocessing = json.loads((out / "manifest.json").read_text())["preprocessing"]
    assert preprocessing["channels"] == "RGB"
    assert preprocessing["mean"] == pytest.approx([123.675, 116.28, 103.53])


@pytest.mark.integration
def test_torch_export(tool, folder, tmp_path, capsys):
    command = [CONFIG, "--images", str(folder), "--format", "pt2", "--stage", "0"]
    tool.main([*command, "--size", "32", "--out-dir", str(tmp_path), "--cfg-options", *SMALL])
    assert "written to" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt2", "manifest.json"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "0"], "must be one or two lengths"),
        (["--size", "32", "--dynamic-size"], "not allowed with"),
        (["--format", "pt2", "--int8"], "--int8 needs --format onnx"),
        (["--benchmark", "0"], "--benchmark 0 must be at least 1"),
        (["--benchmark", "--stage", "0"], "--benchmark compares thresholds, and --stage has none"),
        (["--stage", "2"], "stage must be in [0, 1], got 2"),
        (["--images", "nowhere"], "folder nowhere does not exist"),
    ],
)
def test_mistakes(tool, folder, tmp_path, capsys, options, message):
    images = [] if "--images" in options else ["--images", str(folder)]
    command = [CONFIG, *options, *images, "--out-dir", str(tmp_path)]
    with pytest.raises(SystemExit) as error:
        tool.main([*command, "--cfg-options", *SMALL])
    assert message in f"{error.value}{capsys.readouterr().err}"


def test_a_gate_without_threshold(tool, folder, tmp_path):
    config = tmp_path / "random.py"
    gate = "dict(_delete_=True, type='RandomGate', p=0.5)"
    config.write_text(f"_base_ = {CONFIG!r}\nmodel = dict(backbone=dict(gate={gate}))\n")
    command = [str(config), "--benchmark", "--images", str(folder)]
    with pytest.raises(SystemExit, match="--benchmark: the config's RandomGate has no threshold"):
        tool.main([*command, "--cfg-options", *SMALL])


def test_no_images_to_check_with(tool, tmp_path):
    options = ["val_dataloader.dataset.data_root=/nowhere", *SMALL]
    with pytest.raises(SystemExit, match="name some with --images FOLDER"):
        tool.main([CONFIG, "--out-dir", str(tmp_path), "--cfg-options", *options])
