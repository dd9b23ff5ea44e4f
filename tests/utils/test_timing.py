from itertools import count

import pytest

from tvit_seg.utils.timing import Stopwatch, alternate, compare, spread


def test_every_round_runs_all_contestants_in_changing_order():
    calls, ticks = [], []
    contestants = {name: lambda name=name: calls.append(name) for name in "abc"}
    alternate(contestants, rounds=2, warmup=1, tick=lambda: ticks.append(len(calls)))
    assert "".join(calls) == "cbaabccba"
    assert ticks == [3, 6, 9]


def test_warmup_does_not_count():
    now = [0.0]

    def run(durations):
        now[0] += next(durations)

    slow, fast = count(100), count(1)
    contestants = {"slow": lambda: run(slow), "fast": lambda: run(fast)}
    seconds = alternate(contestants, rounds=3, warmup=2, clock=lambda: now[0])
    assert seconds == {"slow": [102, 103, 104], "fast": [3, 4, 5]}


def test_a_gpu_finishes_before_the_clock_is_read(monkeypatch):
    events = []
    monkeypatch.setattr("torch.cuda.synchronize", lambda device: events.append(str(device)))
    watch = Stopwatch("cuda:1", clock=lambda: events.append("clock") or float(len(events)))
    assert watch.lap() == 2.0
    assert events == ["cuda:1", "clock"] * 2


def test_compare():
    seconds = {"a": [1.0, 2.0, 30.0], "b": [2.0, 4.0, 6.0]}
    ratio, iqr = compare(seconds, lambda t: t["a"] / t["b"])
    assert ratio == 0.5  # of the medians, 2 / 4
    assert iqr == pytest.approx(spread([0.5, 0.5, 5.0])) == 2.25
    assert spread([3.0]) == 0
