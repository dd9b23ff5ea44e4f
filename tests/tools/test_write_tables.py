"""Pages and model index agree with the recorded results, and these with the models."""

import csv

import pytest
import yaml
from helpers.tools import ROOT, load_tool
from mmseg.registry import MODELS

from tvit_seg.cost import stage_gmacs
from tvit_seg.engine.cli import read_config


def zoo():
    with (ROOT / "docs/results/zoo.csv").open(newline="") as file:
        return {row["config"]: row for row in csv.DictReader(file)}


def test_pages_are_generated():
    tool = load_tool("tools/dev/write_tables.py")
    assert not tool.differing(), "run python tools/dev/write_tables.py"


def test_a_changed_figure_is_found(tmp_path, monkeypatch):
    tool = load_tool("tools/dev/write_tables.py")
    (tmp_path / "docs/results").mkdir(parents=True)
    (tmp_path / "docs/results/zoo.csv").write_text("config,dataset\n")
    (tmp_path / "docs/results/some.csv").write_text("threshold,mIoU\n0,39.80\n")
    page = tmp_path / "README.md"
    page.write_text("<!-- table: some.csv -->\n\n| old |\n\nand so on\n")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "RESULTS", tmp_path / "docs/results")
    table = "| threshold | mIoU |\n|---|---|\n| 0 | 39.80 |\n"
    assert tool.pages() == {page: f"<!-- table: some.csv -->\n\n{table}\nand so on\n"}
    assert page in tool.differing()


def test_model_index():
    """Every config is in the index once, with the names that OpenMMLab's tools read."""
    index = yaml.safe_load((ROOT / "model-index.yml").read_text())
    models = [
        m for path in index["Import"] for m in yaml.safe_load((ROOT / path).read_text())["Models"]
    ]
    assert {model["Name"] for model in models} == zoo().keys()
    assert len(models) == len(zoo())
    assert {m["In Collection"] for m in models} == {c["Name"] for c in index["Collections"]}
    for model in models:
        assert (ROOT / model["Config"]).is_file()
        assert (ROOT / model.get("Weights", "README.md")).is_file()


@pytest.mark.parametrize(
    ("folder", "name", "size"),
    [
        ("quickstart", "thinkingvit_scenes-96x96", (96, 96)),
        ("pretrain", "thinkingvit-3h-6h_8xb128-800e_imagenet-224x224", (224, 224)),
        ("upernet", "upernet_thinkingswin-mini_1xb8-1000_camvid-240x320", (240, 320)),
    ],
)
def test_costs_are_the_models(folder, name, size):
    cfg = read_config(ROOT / f"configs/{folder}/{name}.py", {})
    costs = stage_gmacs(MODELS.build({**cfg.model, "pretrained": None}), size)
    recorded = [float(cost) for cost in zoo()[name]["GMACs"].split(" / ")]
    assert costs.tolist() == pytest.approx(recorded, rel=1e-3)
