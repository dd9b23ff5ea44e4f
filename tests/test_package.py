"""What `import tvit_seg` gives, and what it says where it cannot."""

import subprocess
import sys

import pytest

import tvit_seg

PUBLIC = [
    "EntropyGate",
    "FixedGate",
    "PixelEntropyGate",
    "RandomGate",
    "ThinkingClassifier",
    "ThinkingEncoderDecoder",
    "ThinkingSwin",
    "ThinkingViT",
    "convert_state_dict",
    "stage_macs",
]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name):
    assert name in tvit_seg.__all__
    assert getattr(tvit_seg, name).__doc__


@pytest.mark.integration
@pytest.mark.parametrize("missing", ["mmengine", "mmcv", "mmseg"])
def test_a_missing_package_is_named_with_the_command(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import tvit_seg"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert missing in last
    assert "pip install '.[onedl]'" in last


@pytest.mark.integration
def test_a_config_that_imports_nothing_finds_the_backbone():
    """mmengine imports ``tvit_seg.registry`` by itself."""
    code = (
        "import mmseg.models; from mmseg.registry import MODELS; import sys;"
        "assert 'tvit_seg' not in sys.modules;"
        "cfg = dict(type='tvit_seg.ThinkingViT', num_layers=1, thinking_stages=(1, 2));"
        "print(type(MODELS.build(cfg)).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("ThinkingViT")
