"""Files that come with the package but are not Python modules of it."""

from pathlib import Path


def resources(name: str) -> Path:
    """Locate ``configs`` or ``tools``: in an installed package's ``.mim``, or in the checkout."""
    package = Path(__file__).parents[1]
    installed = package / ".mim" / name
    return installed if installed.is_dir() else package.parent / name
