"""A seeded part of each fuzz, which `tools/dev/fuzz_*.py` run in full."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools/dev"))


@pytest.mark.parametrize(
    ("tool", "cases", "options"),
    [
        ("fuzz_configs", 14, ("--sources", "cifar10")),
        ("fuzz_checkpoints", 30, ()),
    ],
)
def test_every_case_ends_well(tool, cases, options, tmp_path):
    found = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, ROOT / "tools/dev" / f"{tool}.py", "--cases", str(cases), *options]
        + ["--seed", "1", "--json", found],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    counts = json.loads(found.read_text())["counts"]
    assert sum(counts.values()) == cases
    assert min(counts["refused"], counts["right"]) >= 2  # of 14 or 30, a third or more each


@pytest.fixture
def verdict(tools, monkeypatch):
    """Says how a change is judged that ends in a result or an error."""
    import fuzz_configs
    from config_changes import Change

    usual = dict(losses={"train/loss": [1.0]}, metrics={}, built=["A {}"], weights=True)

    def judge(field, value, message=None, **found):
        def result(cfg):
            if message:
                raise SystemExit(message)
            return {**usual, **found}

        monkeypatch.setattr(fuzz_configs, "result", result)
        cfg = Config(dict(model=dict(lr=1, head=dict(type="B", lr=1)), log_level="INFO"))
        return fuzz_configs.judge(Change("", tuple(field.split(".")), "", value), cfg, usual)[0]

    return judge


def test_a_result_is_right_if_the_change_shows(verdict):
    from config_changes import MISSING, MISSPELT

    assert verdict("model.lr", 2) == "silent"
    assert verdict("model.lr", MISSPELT) == "silent"
    assert verdict("model.lr", 2, built=["A {'lr': 2}"]) == "right"
    assert verdict("model.lr", 2, metrics=dict(mIoU=1.0)) == "right"
    assert verdict("model.lr", MISSING) == verdict("model.lr", None) == "right"  # the default
    assert verdict("log_level", "ERROR") == "right"  # no result to show in
    assert verdict("model.lr", 2, losses={"train/loss": [math.nan]}) == "silent"
    assert verdict("model.lr", 2, weights=False) == "silent"


def test_an_error_is_clear_if_it_names_the_change(verdict):
    from config_changes import MISSPELT

    assert verdict("model.lr", "x", "error: lr='x' must be a number") == "refused"
    assert verdict("model.lr", MISSPELT, "error: A has no argument 'rl'") == "refused"
    assert verdict("model.head", MISSPELT, "error: A has no argument 'haed'") == "refused"
    assert verdict("model.head", MISSPELT, "error: A lacks something") == "unclear"
    assert verdict("model.lr", "x", "error: model=A(lr='x') cannot be built: oh") == "unclear"
    assert verdict("model.lr", 7, "error: model=A(lr=7) cannot be built: lr > 3") == "refused"
    assert verdict("model.head.type", "C", "error: model.head=C() cannot be built: oh") == "refused"
    assert verdict("model.lr", 7, "error: oh") == "unclear"


def test_draws(tools):
    from config_changes import SENSIBLE, draw

    model = dict(type="A", depth=3, size=(4, 4), on=True, head=dict(type="B", lr=0.1))
    other = dict(model, head=dict(type="C", lr=0.2))
    cfgs = dict(one=Config(dict(model=model)), two=Config(dict(model=other)))
    weights = dict(one=1, two=1)
    drawn = draw(cfgs, weights, 60, seed=0)
    assert [str(change) for change in drawn] == [
        str(change) for change in draw(cfgs, weights, 60, seed=0)
    ]
    kinds = {change.what.partition(" (")[0] for change in drawn}
    assert {"is misspelt", "is missing", "is None", "is as elsewhere", "is doubled"} <= kinds
    for change in drawn:
        assert change.apply(cfgs[change.source]) != cfgs[change.source], change
    assert 0 < SENSIBLE < 1


def test_a_bad_outcome_is_told(tools, capsys):
    import fuzzing

    def dies():
        os._exit(3)

    def waits():
        time.sleep(60)

    def hogs():
        return "right", str(len(bytearray(2**40)))

    outcomes = [
        fuzzing.attempt(work.__name__, work, seconds=2, megabytes=500)
        for work in (dies, waits, hogs)
    ]
    assert [outcome.kind for outcome in outcomes] == ["crash", "hang", "memory"]
    assert fuzzing.report(outcomes, None) == 1
    assert "the process died" in capsys.readouterr().out
    assert fuzzing.report([fuzzing.Outcome("", "refused", "", 0)], None) == 0
