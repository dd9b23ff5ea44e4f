"""A seeded part of each fuzz, which `tools/dev/fuzz_*.py` run in full."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("tool", "cases", "options"),
    [
        ("fuzz_configs", 20, ("--sources", "quickstart/thinkingvit_", "cifar10")),
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
    assert counts["refused"] > 5 and counts["right"] > 3


def test_a_bad_outcome_is_told(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "tools/dev"))
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
