"""Training, resuming and testing a classifier from the command line."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from helpers.builders import classifier
from helpers.classification import config, image_folder

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a tool in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    counter = iter(range(99))

    def call(tool, *arguments, options=()):
        spec = importlib.util.spec_from_file_location(f"tool_{tool}", ROOT / "tools" / f"{tool}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        # mmengine keeps global state under the name of an experiment
        unique = f"experiment_name={tmp_path.name}_{next(counter)}"
        line = [tool, *map(str, arguments), "--cfg-options", unique, *options]
        monkeypatch.setattr(sys, "argv", line)
        module.main()

    return call


@pytest.fixture
def path(tmp_path):
    """A config file over an image folder."""
    cfg = config(image_folder(tmp_path / "images"), tmp_path)
    cfg.pop("work_dir"), cfg.pop("experiment_name")
    cfg.dump(tmp_path / "tiny.py")
    return tmp_path / "tiny.py"


def test_train_resume_and_test(run, path, tmp_path, capsys):
    run("train", path)
    run("train", path, "--resume", "--amp", options=["train_cfg.max_epochs=3"])
    checkpoint = tmp_path / "work_dirs" / "tiny" / "epoch_3.pth"
    state = torch.load(checkpoint, weights_only=True)
    assert state["meta"]["iter"] == 9
    assert state["meta"]["dataset_meta"]["classes"] == ("ant", "bee", "cow")
    run("test", path, checkpoint, options=["log_level=INFO"])
    assert "average GMACs" in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--out", "maps"], ["--show-dir", "painted"], ["--tta"]])
def test_label_maps_are_for_segmentors(run, path, tmp_path, option):
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "w.pth")
    with pytest.raises(SystemExit, match=f"error: {option[0]} needs label maps, but ThinkingClass"):
        run("test", path, tmp_path / "w.pth", *option)


def test_bad_data_ends_in_one_line(run, path, tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*backbone has num_classes=10, but .* 3 class"):
        run("train", path, options=["model.backbone.num_classes=10"])
    (tmp_path / "images" / "train" / "bee" / "1.png").write_bytes(b"")
    with pytest.raises(
        SystemExit,
        match=r"error: train_dataloader \(TimmDataset\): .*\n1 x unreadable image\n.*bee/1\.png",
    ):
        run("train", path)
    mixup = ["model.data_preprocessor.mixup.mixup_alpha=1", "train_dataloader.batch_size=3"]
    with pytest.raises(SystemExit, match=r"bee/1\.png: corrupt"):
        run("train", path, "--skip-data-check", options=mixup)
    (tmp_path / "images" / "train" / "bee" / "1.png").unlink()
    with pytest.raises(SystemExit, match=r"error: .*mixup pairs images and needs an even batch"):
        run("train", path, "--skip-data-check", options=mixup)


def test_bad_weights_are_found_before_the_data_is_read(run, path, tmp_path):
    (tmp_path / "images" / "train" / "bee" / "1.png").write_bytes(b"")
    torch.save({"conv1.weight": torch.zeros(8, 8)}, tmp_path / "other.pth")
    torch.save(classifier(backbone=dict(num_layers=1)).state_dict(), tmp_path / "fewer.pth")
    unknown = r"other\.pth: weights of an unknown kind; looked for .* Found conv1\.weight"
    for options, message in (
        (["model.pretrained=other.pth"], unknown),
        (["model.backbone.pretrained=other.pth"], unknown),
        (["model.pretrained=nowhere.pth"], r"checkpoint nowhere\.pth does not exist"),
        (["load_from=other.pth"], unknown),
        (["load_from=nowhere.pth"], r"checkpoint nowhere\.pth does not exist"),
        (["load_from=fewer.pth", "resume=True"], r"error: cannot resume from fewer\.pth: it holds"),
        (["model.pretrained=fewer.pth"], r"fewer\.pth: weights of another network"),
    ):
        with pytest.raises(SystemExit, match=message):
            run("train", path, options=options)
