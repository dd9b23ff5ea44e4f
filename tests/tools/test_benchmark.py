import json
import platform

import pytest
import torch
from benchmarking.memory import peak_memory
from helpers.tools import load_tool

TINY = ["--rounds", "1", "--warmup", "0", "--size", "32", "--layers", "1"]


@pytest.fixture(scope="module")
def benchmark():
    return load_tool("tools/analysis/benchmark.py")


@pytest.mark.integration
def test_every_row(benchmark, tmp_path, capsys):
    file = tmp_path / "times.json"
    benchmark.main([*TINY, "--json", str(file)])
    (found,) = json.loads(file.read_text())
    printed = capsys.readouterr().out
    assert {row["row"] for row in found["rows"]} == set(range(1, 16))
    for row in found["rows"]:
        assert all(len(times["seconds"]) == 1 for times in row["times"].values())
        for ratio in row["ratios"]:
            assert ratio["name"] in printed
            target = ratio["target"]
            assert ratio["passed"] == (None if target is None else ratio["ratio"] <= target)
    conditions = found["conditions"]
    assert conditions["versions"].keys() == {"torch", "timm", "mmseg", "tvit_seg"}
    assert {"cpu", "cores", "threads", "clock", "rounds", "compile", "device"} <= conditions.keys()


def test_targets_are_for_fp32(benchmark, tmp_path):
    file = tmp_path / "times.json"
    benchmark.main([*TINY, "--rows", "3", "--dtype", "float32", "bfloat16", "--json", str(file)])
    targets = {
        one["conditions"]["dtype"]: one["rows"][0]["ratios"][0]["target"]
        for one in json.loads(file.read_text())
    }
    assert targets == {"float32": 0.30, "bfloat16": None}


def test_targets(benchmark):
    rows = benchmark.choose_rows(benchmark.Setting(), list(range(1, 16)))
    targets = {group: set() for group in range(1, 16)}
    for row in rows:
        targets[row.group] |= {ratio.target for ratio in row.ratios}
    assert targets == {
        1: {1.10}, 2: {0.90}, 3: {0.30}, 4: {1.10}, 5: {1.10}, 6: {1.25},
        7: {0.38, 0.60}, 8: {None}, 9: {1.10, 0.30}, 10: {1.0, 0.80, 0.65, 0.45},
        11: {0.30, 1.10, 0.19, 0.45, 0.72, 0.28}, 12: {0.40, 0.20},
        13: {0.30}, 14: {0.01, None}, 15: {0.22, 0.27, 0.32, 0.50},
    }  # fmt: skip


@pytest.mark.slow
def test_compiled(benchmark, capsys):
    benchmark.main([*TINY, "--warmup", "1", "--rows", "3", "--compile", "no", "yes"])
    assert "compile True" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--rows", "16"], "invalid choice: 16"),
        (["--dtype", "float16"], "invalid choice: 'float16'"),
    ],
)
def test_mistakes(benchmark, capsys, options, message):
    with pytest.raises(SystemExit):
        benchmark.main(options)
    assert message in capsys.readouterr().err


@pytest.mark.gpu
def test_cuda(benchmark, capsys):
    benchmark.main([*TINY, "--device", "cuda", "--dtype", "float32", "bfloat16"])
    assert "gpu" in capsys.readouterr().out


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux reports it")
def test_peak_memory():
    assert peak_memory(lambda: torch.ones(2**26)) == pytest.approx(2**28, rel=0.1)
    assert peak_memory(lambda: None) < 2**22
