"""Remembers which data was found good, in the user's cache folder."""

import hashlib
import json
import os
import warnings
from pathlib import Path

import numpy as np

_CHECKS_VERSION = 1  # raise it when the checks change, so that remembered data is read again
_REMEMBERED_AT_MOST = 200


def fingerprint(pairs: list[tuple[str, str]], allowed: np.ndarray) -> str:
    """Hashes paths, sizes and times of all files, and the values a label may hold.

    Args:
        pairs: Paths of images and labels.
        allowed: Which of the values 0..255 a label may hold.
    """
    # `allowed` stands for num_classes, ignore_index, reduce_zero_label and label_map.
    digest = hashlib.sha256(b"%d" % _CHECKS_VERSION + allowed.tobytes())
    for path in (path for pair in pairs for path in pair):
        stat = os.stat(path)
        digest.update(f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _memory_file() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "tvit_seg" / "data_checks.json"


def _remembered() -> dict[str, str]:
    try:
        return json.loads(_memory_file().read_text())
    except FileNotFoundError:
        return {}
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no home folder
        warnings.warn(f"earlier data checks are unknown: {error}", stacklevel=2)
        return {}


def knows(fingerprint: str) -> bool:
    """Says whether ``remember`` was called with the fingerprint."""
    return fingerprint in _remembered()


def remember(fingerprint: str, folder: str) -> None:
    """Notes that data was found good; only warns where that cannot be written.

    Args:
        fingerprint: Of the data.
        folder: Of the images, for a person who reads the file.
    """
    entries = [*_remembered().items(), (fingerprint, folder)][-_REMEMBERED_AT_MOST:]
    try:
        path = _memory_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")  # another training may write as well
        fresh.write_text(json.dumps(dict(entries), indent=0))
        fresh.replace(path)
    except (OSError, RuntimeError) as error:
        warnings.warn(f"this data check is not remembered: {error}", stacklevel=2)
