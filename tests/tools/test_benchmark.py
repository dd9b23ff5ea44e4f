import importlib.util
import json
import platform
import sys
from itertools import count
from pathlib import Path

import pytest
import torch
from benchmarking.memory import peak_memory

from tvit_seg.utils.timing import alternate, compare, machine, spread

TOOL = Path(__file__).parents[2] / "tools" / "analysis" / "benchmark.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("tvit_seg_benchmark", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


class TestAlternate:
    def test_every_round_runs_everybody_in_changing_order(self):
        calls, ticks = [], []
        names = ("a", "b", "c")
        contestants = {name: lambda name=name: calls.append(name) for name in names}
        alternate(contestants, rounds=2, warmup=1, tick=lambda: ticks.append(len(calls)))
        assert "".join(calls) == "cbaabccba"
        assert ticks == [3, 6, 9]

    def test_warmup_does_not_count(self):
        now = [0.0]

        def run(durations):
            now[0] += next(durations)

        slow, fast = count(100), count(1)
        contestants = {"slow": lambda: run(slow), "fast": lambda: run(fast)}
        seconds = alternate(contestants, rounds=3, warmup=2, clock=lambda: now[0])
        assert seconds == {"slow": [102, 103, 104], "fast": [3, 4, 5]}

    def test_waits_for_the_device_before_each_look_at_the_clock(self):
        events = []
        alternate(
            {"a": lambda: events.append("run")},
            rounds=1,
            warmup=0,
            synchronize=lambda: events.append("wait"),
            clock=lambda: events.append("look") or 0.0,
        )
        assert events == ["wait", "look", "run", "wait", "look"]


def test_compare():
    seconds = {"a": [1.0, 2.0, 30.0], "b": [2.0, 4.0, 6.0]}
    ratio, iqr = compare(seconds, lambda t: t["a"] / t["b"])
    assert ratio == 0.5  # of the medians, 2 / 4
    assert iqr == spread([0.5, 0.5, 5.0]) == 2.25


def test_spread_of_a_single_value():
    assert spread([3.0]) == 0


def test_machine():
    assert {"cpu", "cores", "threads"} == machine().keys()


@pytest.mark.parametrize("rows", [[3, 9, 10], [1, 2, 4, 5], [6, 7], [8]])
def test_tool(benchmark, tmp_path, capsys, rows):
    file = tmp_path / "times.json"
    options = ["--rounds", "1", "--warmup", "0", "--size", "32", "--layers", "1"]
    dtypes = ["--dtype", "float32", "bfloat16"]
    benchmark.main([*options, *dtypes, "--json", str(file), "--rows", *map(str, rows)])

    said = json.loads(file.read_text())
    assert [one["conditions"]["dtype"] for one in said] == ["float32", "bfloat16"]
    printed = capsys.readouterr().out
    for one in said:
        assert {row["row"] for row in one["rows"]} == set(rows)
        for row in one["rows"]:
            for ratio in row["ratios"]:
                assert ratio["name"] in printed
                target = ratio["target"]
                free = row["row"] == 8 or one["conditions"]["dtype"] == "bfloat16"
                assert (target is None) == free
                assert ratio["passed"] == (None if target is None else ratio["ratio"] <= target)
            assert all(len(times["seconds"]) == 1 for times in row["times"].values())
        conditions = one["conditions"]
        assert conditions["versions"].keys() == {"torch", "timm", "mmseg", "tvit_seg"}
        assert {"cpu", "cores", "threads", "clock", "rounds", "compile"} <= conditions.keys()
        assert conditions["device"] == "cpu"
    assert ("PASS" in printed or "FAIL" in printed) == (rows != [8])


@pytest.mark.slow
def test_compiled(benchmark, capsys):
    options = ["--rounds", "1", "--warmup", "1", "--size", "32", "--layers", "1", "--rows", "3"]
    benchmark.main([*options, "--compile", "no", "yes"])
    assert "compile True" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--warmup", "-1"], "--warmup must be at least 0"),
        (["--size", "0"], "--size must be at least 1"),
        (["--rows", "11"], "invalid choice: 11"),
        (["--dtype", "float16"], "invalid choice: 'float16'"),
    ],
)
def test_mistakes(benchmark, capsys, options, message):
    with pytest.raises(SystemExit):
        benchmark.main(options)
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here")
def test_no_cuda(benchmark):
    with pytest.raises(SystemExit, match="this machine has no CUDA device"):
        benchmark.main(["--device", "cuda"])


@pytest.mark.gpu
def test_cuda(benchmark, capsys):
    options = ["--rounds", "1", "--warmup", "0", "--size", "32", "--layers", "1"]
    benchmark.main([*options, "--device", "cuda", "--dtype", "float32", "bfloat16"])
    assert "gpu" in capsys.readouterr().out


def test_targets(benchmark):
    rows = benchmark.choose_rows(benchmark.Setting(), list(range(1, 11)))
    targets = {group: set() for group in range(1, 11)}
    for row in rows:
        targets[row.group] |= {ratio.target for ratio in row.ratios}
    assert targets == {
        1: {1.10}, 2: {0.90}, 3: {0.30}, 4: {1.10}, 5: {1.10}, 6: {1.25},
        7: {0.50}, 8: {None}, 9: {1.10, 0.30}, 10: {1.0, 0.80},
    }  # fmt: skip


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux tells")
def test_peak_memory():
    assert peak_memory(lambda: torch.ones(2**26)) == pytest.approx(2**28, rel=0.1)
    assert peak_memory(lambda: None) < 2**22
