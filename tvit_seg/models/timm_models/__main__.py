"""Runs a script that creates models with timm: ``python -m tvit_seg.models.timm_models SCRIPT``.

The script, its arguments and its folder are as with ``python SCRIPT``; our models are registered.
"""

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run the script that the first argument names."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m tvit_seg.models.timm_models SCRIPT [ARGUMENT ...]")
    del sys.argv[0]
    sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))  # as Python does for a script
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
