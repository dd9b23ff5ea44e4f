"""Console command ``tvit``: each subcommand is one of the scripts in ``tools/``.

A module outside the package, since importing the package takes seconds.
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

COMMANDS = {
    "train": ("train.py", "train a segmentor or a classifier"),
    "test": ("test.py", "evaluate a checkpoint"),
    "demo": ("demo.py", "segment images, folders or videos"),
    "sweep": (
        "analysis/sweep.py",
        "quality and cost at all gate thresholds; thresholds for budgets",
    ),
    "signals": ("analysis/signals.py", "compare signals that a gate could read"),
    "compare": ("analysis/compare_seeds.py", "statistics of sweeps of several trainings"),
    "flops": ("analysis/flops.py", "GMACs and parameters of each thinking stage"),
    "benchmark": ("analysis/benchmark.py", "measured time against other models"),
    "check": ("check_dataset.py", "check the data of a config"),
    "scenes": ("make_scenes.py", "make the procedural dataset of the quickstart"),
    "export": ("export_onnx.py", "export ONNX graphs"),
    "convert import": ("convert/import_weights.py", "read weights of other code bases"),
    "convert export": ("convert/export_weights.py", "write weights for other code bases"),
    "publish": ("publish_checkpoint.py", "reduce a checkpoint to its weights"),
}
PACKAGES = (
    ("torch",),
    ("onedl-mmengine", "mmengine"),
    ("onedl-mmcv", "mmcv"),
    ("onedl-mmsegmentation", "mmsegmentation"),
    ("timm",),
)


def tools() -> Path:
    """Folder of the scripts: inside an installed package, or beside the package in a checkout."""
    package = Path(find_spec("tvit_seg").origin).parent
    return next(
        path for path in (package / ".mim/tools", package.parent / "tools") if path.is_dir()
    )


def usage() -> str:
    """Subcommands and their purposes."""
    lines = ["usage: tvit COMMAND ...", "       tvit COMMAND --help", "       tvit --version", ""]
    return "\n".join(lines + [f"  {name:16}{purpose}" for name, (_, purpose) in COMMANDS.items()])


def versions() -> str:
    """Versions of the product and of what it runs on, for bug reports."""
    lines = []
    for names in (("tvit_seg",), *PACKAGES):
        found = [f"{name} {version_or_none(name)}" for name in names if version_or_none(name)]
        lines += found or [f"{names[0]} not installed"]
    return "\n".join([*lines, f"Python {sys.version.split()[0]}"])


def version_or_none(name: str) -> str | None:
    """Version of an installed distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Run a subcommand with the arguments of ``sys.argv``."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return
    if arguments[0] == "--version":
        print(versions())
        return
    names = (" ".join(arguments[:2]), arguments[0])
    name = next((name for name in names if name in COMMANDS), None)
    if name is None:
        raise SystemExit(f"error: COMMAND must be one of those below, got {names[0]!r}\n{usage()}")
    script = tools() / COMMANDS[name][0]
    sys.path[0] = str(script.parent)  # as for any script: its neighbours can be imported
    sys.argv = [f"tvit {name}", *arguments[len(name.split()) :]]
    spec = spec_from_file_location(f"tvit_{script.stem}", script)
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main()


if __name__ == "__main__":
    main()
