"""What a soak says of a training, without hours of it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

TOOL = Path(__file__).parents[2] / "tools/dev/soak.py"


@pytest.fixture(scope="module")
def soak():
    spec = importlib.util.spec_from_file_location("soak", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def looks(mb_per_hour):
    """Two hours."""
    return [
        dict(seconds=s, mb=900 + mb_per_hour * s / 3600, cpu_seconds=s, iterations=s, checkpoints=2)
        for s in range(10, 7201, 10)
    ]


def test_verdict(soak, tmp_path):
    args = soak.parse_args(["--work-dir", str(tmp_path), "--most-mb-per-hour", "30"])
    assert soak.verdict(soak.summary(looks(29)), args) is None
    wrong = soak.verdict(soak.summary(looks(40)), args)
    assert wrong == "memory grows by 40 MB per hour, more than 30"
    assert soak.parse_args([]).most_mb_per_hour == 20
    for name in ("iter_1", "iter_2", "best_mIoU_iter_1"):
        (tmp_path / f"{name}.pth").touch()
    assert soak.verdict(soak.summary(looks(0)), args) is None
    (tmp_path / "iter_3.pth").touch()
    assert (
        soak.verdict(soak.summary(looks(0)), args) == f"{tmp_path} holds 3 checkpoints, more than 2"
    )


def test_a_process_that_ends_while_it_is_looked_at(soak, tmp_path, monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    gone = psutil.Process(child.pid)
    child.communicate(b"\n")
    here = psutil.Process()
    monkeypatch.setattr(here, "children", lambda recursive: [gone])
    assert 0 < soak.look(here, tmp_path)["mb"] <= here.memory_info().rss / 2**20 + 50
