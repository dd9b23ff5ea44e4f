"""Mistakes on the command line of the sweep end before anything is built."""

import importlib.util
from pathlib import Path

import pytest
from mmengine.config import Config

TOOL = Path(__file__).parents[2] / "tools" / "analysis" / "sweep.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("tvit_seg_sweep", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--thresholds", "0.5", "0.2"], "must be increasing"),
        (["--thresholds", "nan"], "threshold must be a number >= 0"),
        (["--keep-ratios", "0.5", "1.5"], "keep ratios must be different numbers in (0, 1]"),
        (["--keep-ratios", "0.5", "--max-drop", "1"], "single keep ratio"),
        (["--keep-ratios", "0.5", "--sheet", "x.png"], "single keep ratio"),
        (["--keep-ratios", "0.5", "--report", "x.html"], "single keep ratio"),
        (["--report", "x.pdf"], "x.pdf must end in .html"),
        (["--max-drop", "-1"], "budget drop must be a number >= 0"),
        (["--confidence", "0.9"], "--max-drop must be given"),
        (["--max-drop", "1", "--confidence", "90"], "confidence must be"),
        (["--splits", "3"], "need a budget"),
        (["--budget-ms", "9", "--splits", "0"], "--splits 0 must be at least 1"),
        (["--budget-ms", "9", "--adaptive"], "--adaptive needs --write-config"),
        (["--budget-ms", "9", "--write-config", "./config.py"], "would replace the config itself"),
        (["--budget-gmacs", "1", "--budget-ms", "9"], "not allowed with argument"),
        (["--budget-ms", "9", "--write-config", "x.json"], "x.json must end in .py"),
    ],
)
def test_mistakes(tool, capsys, options, message):
    with pytest.raises(SystemExit) as error:
        tool.parse_args(["config.py", "weights.pth", *options])
    assert message in f"{error.value}{capsys.readouterr().err}"


def test_budget(tool):
    args = tool.parse_args(["config.py", "weights.pth", "--max-drop", "0.5"])
    assert (args.budget.kind, args.budget.value) == ("drop", 0.5)
    assert tool.parse_args(["config.py", "weights.pth"]).budget is None


def test_a_written_config_keeps_options(tool, tmp_path):
    """It lies elsewhere, and still finds its base."""
    root = Path(__file__).parents[2]
    config = root / "configs/quickstart/thinkingvit_scenes-96x96.py"
    target = tmp_path / "deep" / "planned.py"
    options = ["--cfg-options", "model.test_cfg.mode=slide", "model.test_cfg.stride=(48,48)"]
    written = ["--budget-ms", "9", "--write-config", str(target), *options]
    args = tool.parse_args([str(config), "weights.pth", *written])
    tool.write_config(target, args, dict(threshold=0.25))
    cfg = Config.fromfile(target)
    assert cfg.model.test_cfg == dict(mode="slide", stride=(48, 48))
    expected = dict(type="PixelEntropyGate", threshold=0.25, resolution="token")
    assert cfg.model.backbone.gate == expected
    assert "_base_ = '../" in target.read_text()


def test_training_images_in_the_pipeline_for_testing(tool):
    def loader(**dataset):
        return dict(dataset=dict(type="A", pipeline=["test"], data_prefix="val", **dataset))

    cfg = Config(dict(test_dataloader=loader(), train_dataloader=loader(data_root="there")))
    cfg.train_dataloader.dataset.update(data_prefix="train", pipeline=["augment"])
    chosen = tool.choose_data(cfg, "train").dataset
    assert (chosen.data_root, chosen.data_prefix, chosen.pipeline) == ("there", "train", ["test"])
    assert cfg.test_dataloader.dataset.data_prefix == "val"
    cfg.train_dataloader.dataset.type = "RepeatDataset"
    with pytest.raises(ValueError, match=r"training data must be A, .*RepeatDataset"):
        tool.choose_data(cfg, "train")
    with pytest.raises(ValueError, match="the config has no val_dataloader"):
        tool.choose_data(cfg, "val")
