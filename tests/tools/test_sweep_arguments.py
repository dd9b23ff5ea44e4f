"""Mistakes on the command line of the sweep end before anything is built."""

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "analysis" / "sweep.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("tvit_seg_sweep", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--thresholds", "0.5", "0.2"], "must be increasing"),
        (["--thresholds", "-1"], "threshold=-1.0 must be a number >= 0"),
        (["--thresholds", "nan"], "threshold=nan must be a number >= 0"),
        (["--max-drop", "-1"], "budget drop=-1.0 must be a number >= 0"),
        (["--splits", "3"], "need a budget"),
        (["--budget-gmacs", "1", "--budget-ms", "9"], "not allowed with argument"),
        (["--budget-ms", "9", "--write-config", "x.json"], "x.json must end in .py"),
    ],
)
def test_mistakes(tool, capsys, options, message):
    with pytest.raises(SystemExit) as error:
        tool.parse_args(["config.py", "weights.pth", *options])
    assert message in f"{error.value}{capsys.readouterr().err}"


def test_budget(tool):
    args = tool.parse_args(["config.py", "weights.pth", "--max-drop", "0.5"])
    assert (args.budget.kind, args.budget.value) == ("drop", 0.5)
    assert tool.parse_args(["config.py", "weights.pth"]).budget is None
