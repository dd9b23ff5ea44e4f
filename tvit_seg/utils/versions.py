"""Versions of dependencies that this package works with."""

from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

FRAMEWORKS = dict(torch=">=2.6", timm=">=1.0.23")
ONNX = dict(torch=">=2.13")  # graphs of older exporters fail at other batch or image sizes
ONEDL = {
    "onedl-mmengine": ">=0.10.10",
    "onedl-mmcv": ">=2.3.3",
    "onedl-mmsegmentation": ">=1.4.0",
}
# mmsegmentation 1.2.2 takes no newer mmcv
OPENMMLAB = {
    "mmengine": ">=0.10.7",
    "mmcv": ">=2.1.0,<2.2",
    "mmsegmentation": ">=1.2.2",
}


def mm_distribution() -> str | None:
    """Name the publisher of the installed mm* packages, ``'OneDL'`` or ``'OpenMMLab'``."""
    if _installed("onedl-mmengine"):
        return "OneDL"
    return "OpenMMLab" if _installed("mmengine") else None


def check_versions() -> None:
    """Raise ``ImportError`` for wrong versions, or if both mm* distributions are installed.

    Nothing is imported; absent packages are left to the import.
    """
    for pair in zip(ONEDL, OPENMMLAB, strict=True):
        if all(map(_installed, pair)):
            raise ImportError(
                f"{' and '.join(pair)} are installed over each other, their files have the same "
                "names"
            )
    if wrong := unfit({**FRAMEWORKS, **ONEDL, **OPENMMLAB}):
        raise ImportError("; ".join(wrong))


def unfit(needed: dict[str, str]) -> list[str]:
    """Describe installed distributions whose version does not fit."""
    return [
        f"{name} {found} is installed, {name}{works} works"
        for name, works in needed.items()
        if (found := _installed(name)) and not SpecifierSet(works).contains(found, prereleases=True)
    ]


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
