import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py")


@pytest.fixture(scope="module")
def flops():
    spec = importlib.util.spec_from_file_location(
        "tvit_seg_flops", ROOT / "tools/analysis/flops.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table(flops, tmp_path, capsys):
    flops.main([CONFIG, "--json", str(tmp_path / "new" / "flops.json")])
    printed = capsys.readouterr().out
    assert "one image of 96 x 96 pixels" in printed
    assert "Convention: one multiply-accumulate" in printed
    rows = json.loads((tmp_path / "new" / "flops.json").read_text())["rows"]
    assert [(row["part"], row["stage"]) for row in rows] == [
        ("backbone", 0),
        ("backbone", 1),
        ("with decode head", 0),
        ("with decode head", 1),
    ]
    assert rows[2]["gmacs"] == pytest.approx(0.01352, rel=1e-3)
    assert all(row["parameters_m"] > 0 for row in rows)


def test_size_and_options(flops, capsys):
    flops.main([CONFIG, "--size", "64", "33", "--cfg-options", "model.backbone.num_layers=1"])
    assert "one image of 64 x 33 pixels" in capsys.readouterr().out


def test_a_gate_that_reads_pixels(flops, capsys, tmp_path):
    """It has every stage decoded, which the backbone alone cannot."""
    config = tmp_path / "pixel.py"
    gate = "dict(_delete_=True, type='PixelEntropyGate', threshold=0.5, resolution='token')"
    config.write_text(f"_base_ = {CONFIG!r}\nmodel = dict(backbone=dict(gate={gate}))\n")
    flops.main([str(config), "--json", str(tmp_path / "flops.json")])
    found = json.loads((tmp_path / "flops.json").read_text())
    rows = found["rows"]
    heads = [rows[2 + i]["gmacs"] - rows[i]["gmacs"] for i in (0, 1)]
    assert heads[1] == pytest.approx(2 * heads[0])
    assert found["gate"]["gmacs"] == pytest.approx(heads[0])
    assert "PixelEntropyGate takes" in capsys.readouterr().out


def test_pruning_that_reads_pixels(flops, capsys, tmp_path):
    """The backbone cannot run alone; a share of the tokens is cheaper than all."""
    config = ROOT / "configs/quickstart/thinkingvit-tokens_scenes-96x96.py"
    flops.main([str(config), "--json", str(tmp_path / "flops.json")])
    rows = json.loads((tmp_path / "flops.json").read_text())["rows"]
    assert [row["part"] for row in rows] == 2 * ["with decode head"]
    assert rows[1]["gmacs"] < 0.7 * 0.1525


def test_mistakes(flops, tmp_path, capsys):
    with pytest.raises(SystemExit):
        flops.main([CONFIG, "--size", "1", "2", "3"])
    assert "must be one or two lengths" in capsys.readouterr().err
    config = tmp_path / "plain.py"
    config.write_text(
        "crop_size = (32, 32)\n"
        "model = dict(type='EncoderDecoder', backbone=dict(type='VisionTransformer', img_size=32,"
        " num_layers=1, embed_dims=32, num_heads=2),"
        " decode_head=dict(type='FCNHead', in_channels=32, channels=8, num_classes=2))\n"
    )
    with pytest.raises(SystemExit, match="EncoderDecoder has no thinking backbone"):
        flops.main([str(config)])
