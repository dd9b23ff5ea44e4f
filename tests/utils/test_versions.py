"""Versions that work, and the errors for others."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tvit_seg.utils import versions

ROOT = Path(__file__).parents[2]
ONEDL = {
    "torch": "2.15.0",
    "timm": "1.0.31",
    "onedl-mmengine": "0.10.12",
    "onedl-mmcv": "2.3.6",
    "onedl-mmsegmentation": "1.4.2",
}
OPENMMLAB = {
    "torch": "2.13.0+cpu",
    "timm": "1.0.31",
    "mmengine": "0.10.7",
    "mmcv": "2.1.0",
    "mmsegmentation": "1.2.2",
}


@pytest.fixture
def installed(monkeypatch):
    """Pretends that just these distributions are there."""

    def pretend(found):
        monkeypatch.setattr(versions, "_installed", found.get)

    return pretend


@pytest.mark.parametrize(
    ("found", "name"),
    [(ONEDL, "OneDL"), (OPENMMLAB, "OpenMMLab"), ({"torch": "2.16.0.dev1"}, None)],
)
def test_what_works(installed, found, name):
    installed(found)
    versions.check_versions()
    assert versions.mm_distribution() == name


@pytest.mark.parametrize(
    ("stack", "changed", "message"),
    [
        (ONEDL, {"torch": "2.4.1"}, r"torch 2\.4\.1 is installed, torch>=2\.6 works"),
        (OPENMMLAB, {"mmcv": "2.2.0"}, r"mmcv 2\.2\.0 is installed, mmcv>=2\.1\.0,<2\.2 works"),
        (OPENMMLAB, {"mmengine": "0.9.0", "timm": "0.4"}, r"timm 0\.4 .*; mmengine 0\.9\.0 is"),
        (ONEDL, {"mmcv": "2.1.0"}, "onedl-mmcv and mmcv are installed over each other"),
    ],
)
def test_what_does_not(installed, stack, changed, message):
    installed({**stack, **changed})
    with pytest.raises(ImportError, match=message):
        versions.check_versions()


def with_old_torch(code):
    old = (
        "import importlib.metadata as m; real = m.version;"
        "m.version = lambda name: '2.4.1' if name == 'torch' else real(name);"
    )
    command = [sys.executable, "-c", old + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr.strip().splitlines()


@pytest.mark.integration
def test_the_error_at_import_is_one_line_with_the_command():
    last = with_old_torch("import tvit_seg")[-1]
    assert "torch 2.4.1 is installed, torch>=" in last
    assert "pip install '.[onedl]'" in last


@pytest.mark.integration
def test_a_config_that_imports_nothing_gets_it_too():
    """mmengine goes on where the import fails, and says that the type is not registered."""
    lines = with_old_torch(
        "import mmseg.models; from mmseg.registry import MODELS;"
        "MODELS.build(dict(type='tvit_seg.ThinkingViT'))"
    )
    assert any("torch 2.4.1 is installed, torch>=" in line for line in lines)


def test_setup_asks_for_what_works():
    named = re.findall(r'"([\w-]+[<>=][^"]*)"', (ROOT / "setup.py").read_text())
    asked = {r.name: r.specifier for r in map(Requirement, named)}
    for name, works in {**versions.FRAMEWORKS, **versions.ONEDL}.items():
        assert asked[name] == SpecifierSet(works)
    for name, works in versions.OPENMMLAB.items():
        exact = str(asked[name]).removeprefix("==")
        assert SpecifierSet(works).contains(exact)


def test_the_oldest_are_pinned():
    """``make test STACK=oldest`` installs the oldest versions that are declared to work."""
    pinned = (ROOT / "requirements/oldest.txt").read_text()
    for name, works in {**versions.FRAMEWORKS, **versions.ONEDL}.items():
        least = works.removeprefix(">=")
        assert re.search(rf"^{name}=={re.escape(least)}(\.0)*$", pinned, re.MULTILINE)
