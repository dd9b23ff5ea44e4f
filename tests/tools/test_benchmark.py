import importlib.util
import json
import sys
from itertools import count
from pathlib import Path

import pytest

from tvit_seg.timing import alternate, compare, machine, spread

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


@pytest.mark.parametrize("rows", [[3], [1, 2, 4]])
def test_tool(benchmark, tmp_path, capsys, rows):
    file = tmp_path / "times.json"
    options = ["--rounds", "1", "--warmup", "0", "--size", "32", "--layers", "1"]
    benchmark.main([*options, "--json", str(file), "--rows", *map(str, rows)])

    said = json.loads(file.read_text())
    assert {row["row"] for row in said["rows"]} == set(rows)
    printed = capsys.readouterr().out.splitlines()[-len(said["rows"]) :]
    for line, row in zip(printed, said["rows"], strict=True):
        assert row["name"] in line
        assert ("PASS" if row["passed"] else "FAIL") in line
        assert row["passed"] == (row["ratio"] <= row["target"])
        assert all(len(times["seconds"]) == 1 for times in row["times"].values())
    conditions = said["conditions"]
    assert conditions["versions"].keys() == {"torch", "timm", "mmseg", "tvit_seg"}
    assert (conditions["dtype"], conditions["device"]) == ("float32", "cpu")
    assert {"cpu", "cores", "threads", "clock", "rounds"} <= conditions.keys()


def test_rounds_must_be_positive(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--rounds", "0"])
    assert "--rounds must be at least 1" in capsys.readouterr().err


def test_targets(benchmark):
    rows = list(benchmark.build_rows(benchmark.Setting()))
    assert [row.target for row in rows if row.group == 1] == [1.10] * 4
    assert [row.target for row in rows if row.group > 1] == [0.90, 0.30, 1.10]
