"""``tools/dev/swap_backbones.py`` as a module."""

import importlib.util
import sys
from pathlib import Path

_PATH = Path(__file__).parents[2] / "tools/dev/swap_backbones.py"
_spec = importlib.util.spec_from_file_location("swap_backbones", _PATH)
swap_backbones = sys.modules["swap_backbones"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(swap_backbones)
CONFIGS = swap_backbones.mmseg_files() / "configs"
