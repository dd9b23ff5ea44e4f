"""The commands of `make demo`, on a handful of scenes and iterations."""

import csv
import json
import os
import re
import runpy
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.processes import free_port, launcher

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CONFIG = "configs/quickstart/thinkingvit_scenes-96x96.py"


def run(*command):
    """Runs a tool from the root of the repository and returns what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def refused(*command, patch):
    """Runs a tool in this process, which it has to end with one line; returns that."""
    patch.chdir(ROOT)
    patch.setattr(sys, "argv", list(map(str, command)))
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(command[0], run_name="__main__")
    error = str(stopped.value.code)
    assert error.startswith("error: ")
    assert "\n" not in error
    return error


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Options that point to a small dataset, a work directory and a checkpoint in it."""
    folder = tmp_path_factory.mktemp("quickstart")
    data = folder / "scenes"
    run("tools/make_scenes.py", data, "--size", 96, "--num-train", 16, "--num-val", 5)
    options = [
        "--work-dir",
        folder / "work",
        "--cfg-options",
        *(f"{split}_dataloader.dataset.data_root={data}" for split in ("train", "val", "test")),
        *(f"{split}_dataloader.num_workers=0" for split in ("train", "val", "test")),
        "train_dataloader.batch_size=4",
        "train_cfg.max_iters=4",
        "train_cfg.val_interval=4",
        "default_hooks.checkpoint.interval=2",
        "default_hooks.logger.interval=1",
    ]
    log = run("tools/train.py", CONFIG, *options)
    assert "stage0.decode.loss_ce" in log
    assert "stage1.image.loss" in log
    assert "thinking/gmacs" in log
    return options, folder / "work"


def test_resume(trained):
    options, _ = trained
    log = run("tools/train.py", CONFIG, "--resume", *options, "train_cfg.max_iters=6")
    assert "Iter(train) [5/6]" in log
    assert "Iter(train) [4/6]" not in log


def test_overlays(trained, tmp_path):
    options, work = trained
    run("tools/test.py", CONFIG, work / "iter_4.pth", "--show-dir", tmp_path, *options)
    pictures = sorted(tmp_path.rglob("*.png"))
    assert len(pictures) == 5
    assert cv2.imread(str(pictures[0])).shape == (288 + 22 + 28, 3 * 288, 3)


PAIRABLE = {
    "--tta": [],
    "--out": ["labels"],
    "--show-dir": ["painted"],
    "--amp": [],
    "--trust-checkpoint": [],
}
"""Options of tools/test.py that each work alone, with their values."""


@pytest.mark.parametrize("pair", combinations(PAIRABLE, 2), ids="".join)
def test_options_in_pairs(trained, pair, tmp_path):
    options, work = trained
    values = [
        word
        for option in pair
        for word in (option, *(str(tmp_path / name) for name in PAIRABLE[option]))
    ]
    run("tools/test.py", CONFIG, work / "iter_4.pth", *values, *options)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    written = {path.relative_to(tmp_path).parts[0] for path in files}
    assert written == {name for option in pair for name in PAIRABLE[option]}
    for folder in written:  # no config.py among the pictures, which ruff would check
        files = list((tmp_path / folder).rglob("*.*"))
        assert len(files) == 5
        assert {path.suffix for path in files} == {".png"}


def figures(log):
    """The last line of figures in a log."""
    line = [line for line in log.splitlines() if "thinking/gmacs" in line][-1]
    return re.findall(r"(\S+): ([\d.]+|nan)", line.split("aAcc")[1].split("data_time")[0])


def test_two_processes_find_the_same(trained):
    """Five images on two processes: one is padded, and must not count twice."""
    options, work = trained
    gate = "model.backbone.gate.threshold=0.6"
    alone = run("tools/test.py", CONFIG, work / "iter_4.pth", *options, gate)
    command = ["bash", "tools/dist_test.sh", CONFIG, work / "iter_4.pth", 2, *options, gate]
    together = subprocess.run(
        [*map(str, command)],
        cwd=ROOT,
        env={**os.environ, "PORT": str(free_port()), "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert together.returncode == 0, together.stdout[-2000:] + together.stderr[-4000:]
    assert figures(together.stdout + together.stderr) == figures(alone)


def test_test_time_augmentation(trained):
    options, work = trained
    alone = figures(run("tools/test.py", CONFIG, work / "iter_4.pth", *options))
    views = figures(run("tools/test.py", CONFIG, work / "iter_4.pth", "--tta", *options))
    cost = [float(dict(found)["thinking/gmacs"]) for found in (alone, views)]
    assert cost[1] == pytest.approx(2 * cost[0], rel=0.01)


def test_sweep(trained, tmp_path):
    options, work = trained
    found = tmp_path / "sweep.json"
    printed = run("tools/analysis/sweep.py", CONFIG, work / "iter_4.pth", "--json", found, *options)
    assert "stage0.share" in printed
    assert "thinks.hard" in printed
    rows = json.loads(found.read_text())["rows"]
    assert [row["threshold"] for row in (rows[0], rows[-1])] == [0, "inf"]
    assert (rows[0]["stage0.share"], rows[-1]["stage0.share"]) == (0, 100)


def test_seeds_are_compared(trained, tmp_path):
    options, work = trained
    table, found = tmp_path / "images.csv", tmp_path / "seeds.csv"
    run("tools/analysis/sweep.py", CONFIG, work / "iter_4.pth", "--images", table, *options)
    plot = ("--csv", found, "--plot", tmp_path / "seeds.png")
    printed = run("tools/analysis/compare_seeds.py", table, table, *plot)
    assert "of the oracle's" in printed
    rows = list(csv.DictReader(found.open()))
    assert [float(row["share"]) for row in rows] == [0, 0.25, 0.5, 0.75, 1]
    assert all(float(row["spread"]) == 0 for row in rows)  # one training, read twice
    assert cv2.imread(str(tmp_path / "seeds.png")) is not None


def test_signals(trained, tmp_path):
    options, work = trained
    command = ("tools/analysis/signals.py", CONFIG, work / "iter_4.pth", "--learn", *options)
    run(*command[:3], "--csv", tmp_path / "signals.csv", *command[3:])
    rows = list(csv.DictReader((tmp_path / "signals.csv").open()))
    assert {row["level"] for row in rows} == {"image", "window", "token"}
    assert {"gate", "entropy", "margin", "learned"} <= {row["signal"] for row in rows}


def test_mixed_precision(trained, tmp_path):
    """Labels differ by rounding from those in full precision; the cost does not."""
    options, work = trained
    costs, labels = [], []
    for amp in ([], ["--amp"]):
        out = tmp_path / f"labels{len(amp)}"
        log = run("tools/test.py", CONFIG, work / "iter_4.pth", *amp, "--out", out, *options)
        costs.append(dict(figures(log))["thinking/gmacs"])
        labels.append([cv2.imread(str(path), 0) for path in sorted(out.iterdir())])
    assert costs[0] == costs[1]
    changed = (np.array(labels[0]) != np.array(labels[1])).mean()
    assert 0 < changed < 0.05
    found = tmp_path / "sweep.json"
    sweep = ("tools/analysis/sweep.py", CONFIG, work / "iter_4.pth", "--json", found)
    run(*sweep, "--amp", "--thresholds", 0, *options)
    exact = tmp_path / "exact.json"
    run(*sweep[:-1], exact, "--thresholds", 0, *options)
    (row,), (other,) = (json.loads(path.read_text())["rows"] for path in (found, exact))
    assert row["gmacs"] == other["gmacs"]
    assert row["aAcc"] != other["aAcc"]


def test_token_pruning(trained, tmp_path):
    """Trains from the shipped weights, sweeps keep ratios, draws what survives."""
    options, _ = trained
    config, work = "configs/quickstart/thinkingvit-pruned_scenes-96x96.py", tmp_path / "work"
    log = run("tools/train.py", config, *options, "--work-dir", work)
    assert "pruning.loss_ratio" in log
    drawn, found = tmp_path / "sweep.png", tmp_path / "sweep.json"
    sweep = ("tools/analysis/sweep.py", config, work / "iter_4.pth", "--keep-ratios", 1, 0.7)
    printed = run(*sweep, "--thresholds", 0, 1, "--json", found, "--plot", drawn, *options)
    assert "| pareto" in printed
    rows = json.loads(found.read_text())["rows"]
    assert [row["keep_ratio"] for row in rows] == [1, 1, 0.7, 0.7]
    assert rows[2]["gmacs"] < rows[0]["gmacs"]
    assert any(row["pareto"] for row in rows)
    assert cv2.imread(str(drawn)) is not None


def test_two_processes_sweep_the_same(trained, tmp_path):
    options, work = trained
    sweep = ("tools/analysis/sweep.py", CONFIG, work / "iter_4.pth", *options)
    found = [tmp_path / "one.csv", tmp_path / "two.csv"]
    thresholds = ("--thresholds", 0, 0.6, 1)
    run(*sweep, *thresholds, "--csv", found[0])
    run(*launcher(2), *sweep, *thresholds, "--csv", found[1], "--launcher", "pytorch")
    one, two = (list(csv.DictReader(file.open())) for file in found)
    measured = ("ms", "fps")
    assert [{**row, **dict.fromkeys(measured)} for row in one] == [
        {**row, **dict.fromkeys(measured)} for row in two
    ]
    assert all(float(row["ms"]) > 0 for row in one + two)


@pytest.mark.parametrize("adaptive", [[], ["--adaptive"]], ids=["fixed", "adaptive"])
def test_a_budget_becomes_a_config(trained, tmp_path, adaptive):
    options, work = trained
    planned, found = tmp_path / "planned.py", tmp_path / "sweep.json"
    budget = ("--budget-gmacs", 0.11, "--splits", 2, *adaptive)
    written = ("--write-config", planned, "--json", found)
    printed = run(
        "tools/analysis/sweep.py", CONFIG, work / "iter_4.pth", *budget, *written, *options
    )
    assert "random halves" in printed
    expected = json.loads(found.read_text())["plan"]["expected"]["gmacs"]
    assert expected["low"] <= expected["mean"] <= min(expected["high"], 0.11)
    tested = dict(figures(run("tools/test.py", planned, work / "iter_4.pth", *options)))
    # a BudgetGate may be an image off
    tolerance = 0.14 / 5 if adaptive else 1e-3
    assert float(tested["thinking/gmacs"]) == pytest.approx(expected["mean"], abs=tolerance)


def test_calibration_on_training_images(trained, tmp_path):
    options, work = trained
    sweep = ("tools/analysis/sweep.py", CONFIG, work / "iter_4.pth", "--split", "train")
    run(*sweep, "--max-drop", 1, "--json", tmp_path / "sweep.json", *options)
    row = json.loads((tmp_path / "sweep.json").read_text())["rows"][1]
    assert row["stage0.share"] * 16 % 100 == 0  # of 16 images


def test_a_budget_out_of_reach_ends_in_one_line(trained, monkeypatch):
    given, work = trained
    sweep = ("tools/analysis/sweep.py", CONFIG, work / "iter_4.pth", "--budget-gmacs", 0.01)
    error = refused(*sweep, *given, patch=monkeypatch)
    assert "a budget of 0.01 gmacs is out of reach: an image costs from 0.01" in error


def test_two_processes_train(trained, tmp_path):
    """Every parameter of every stage takes part, so that nothing waits for an unused one."""
    options, work = trained
    options = [tmp_path if option == work else option for option in options]
    log = run(*launcher(2), "tools/train.py", CONFIG, "--launcher", "pytorch", *options)
    assert "Iter(train) [4/4]" in log


def test_publish(trained, tmp_path):
    options, work = trained
    small = tmp_path / "small.pth"
    run("tools/publish_checkpoint.py", work / "iter_4.pth", small)
    checkpoint = torch.load(small, weights_only=True)
    assert set(checkpoint) == {"meta", "state_dict"}
    assert checkpoint["meta"]["dataset_meta"]["classes"][0] == "background"
    assert "mIoU" in run("tools/test.py", CONFIG, small, *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.backbone.gate.treshold=0.5"], "unexpected keyword argument 'treshold'"),
        (["model.backbone.thinking_stage=(2,4)"], "no argument 'thinking_stage'"),
        (["model.backbone.thinking_stages=(4,2)"], "must be increasing"),
        (["model.backbone.gate.threshold=-1"], "must be a number >= 0"),
        (["model.decode_head.num_classes=3", "model.image_loss=None"], "num_classes=3"),
        (["model.pretrained=https://host/vit.pth"], "only local files are read"),
        (["model.pretrained=nowhere.pth"], "nowhere.pth does not exist"),
    ],
)
def test_mistakes_end_in_one_line(trained, options, message, monkeypatch):
    given, _ = trained
    error = refused("tools/train.py", CONFIG, *given, *options, patch=monkeypatch)
    assert message in error


def test_an_option_for_nothing_is_pointed_out(trained):
    given, work = trained
    printed = run("tools/test.py", CONFIG, work / "iter_4.pth", *given, "modell.backbone.x=2")
    assert "the config has no 'modell'" in printed


def test_missing_data_is_named_before_work(trained, monkeypatch):
    _, work = trained
    option = ("--cfg-options", "test_dataloader.dataset.data_root=nowhere")
    for tool in ("tools/test.py", "tools/analysis/sweep.py"):
        error = refused(tool, CONFIG, work / "iter_4.pth", *option, patch=monkeypatch)
        assert "not found: 'nowhere/img_dir/val'" in error
        assert "python tools/make_scenes.py data/scenes --size 96" in error
