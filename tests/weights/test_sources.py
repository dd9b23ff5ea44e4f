"""Everybody's real classes: features agree, or the weights are refused; no damage passes."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "tools/dev/check_sources.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("check_sources", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_sources"] = module  # for its dataclass
    spec.loader.exec_module(module)
    return module


READ = [
    ("timm", "DeiT"),
    ("timm", "DeiT III"),
    ("timm", "DINOv2"),
    ("timm", "Swin"),
    ("Google", "ViT, AugReg"),
    ("transformers", "ViT, classifier"),
    ("transformers", "DINOv2"),
    ("transformers", "Swin"),
    ("torchvision", "ViT"),
    ("torchvision", "Swin"),
    ("mmpretrain", "DINOv2"),
    ("mmsegmentation", "ViT"),
    ("mmsegmentation", "ViT, 64 x 96"),
    ("mmsegmentation", "Swin"),
]


@pytest.mark.parametrize("key", READ, ids=", ".join)
@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_is_read_and_no_damage_passes(tool, key):
    if key[0] in ("transformers", "mmpretrain"):
        pytest.importorskip(key[0], exc_type=ImportError)
    _, result, silent = tool.check(tool.SOURCES[key][1], mutate=True)
    assert not silent
    assert float(result) < 1e-5


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_no_source_is_read_wrong(tool):
    for (package, kind), (_, build) in tool.SOURCES.items():
        try:
            _, result, silent = tool.check(build, mutate=False)
        except ImportError:
            continue
        assert not silent, (package, kind, result)
