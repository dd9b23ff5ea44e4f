"""Which versions of its foundations this package works with."""

from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

FRAMEWORKS = dict(torch=">=2.6", timm=">=1.0.23")
ONNX = dict(torch=">=2.13")  # what older exporters write fails for other numbers or sizes of images
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
    """Whose mm* packages are installed: ``'OneDL'``, ``'OpenMMLab'``, or None without mmengine."""
    for name, distribution in (("OneDL", "onedl-mmengine"), ("OpenMMLab", "mmengine")):
        if _installed(distribution):
            return name
    return None


def check_versions() -> None:
    """Looks at what is installed, without importing it; what is absent is left to the import.

    Raises:
        ImportError: If a package is too old or too new, or if both mm* distributions, which have
            the same import names, are installed over each other.
    """
    both = [
        f"{ours} and {theirs}"
        for ours, theirs in zip(ONEDL, OPENMMLAB, strict=True)
        if _installed(ours) and _installed(theirs)
    ]
    if both:
        raise ImportError(
            f"{', '.join(both)} are installed over each other, their files have the same names"
        )
    if wrong := unfit({**FRAMEWORKS, **ONEDL, **OPENMMLAB}):
        raise ImportError("; ".join(wrong))


def unfit(needed: dict[str, str]) -> list[str]:
    """What is installed in another version than needed, in words.

    Args:
        needed: Versions that work, by distribution; what is absent counts as fit.
    """
    wrong = []
    for name, works in needed.items():
        found = _installed(name)
        if found and not SpecifierSet(works).contains(found, prereleases=True):
            wrong.append(f"{name} {found} is installed, {name}{works} works")
    return wrong


def _installed(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
