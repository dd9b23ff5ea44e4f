"""Atomic file replacement."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name next to ``path`` to write to; afterwards it replaces ``path``.

    If writing fails, the new file is removed and ``path`` stays unchanged. Folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as held:
            with suppress(OSError):  # a filesystem without locks, where nothing is a leftover
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield temporary
            _to_disk(temporary)
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _to_disk(path.parent)  # the renaming itself


def clear_leftovers(folder: str | Path) -> list[Path]:
    """Remove and return temporary files that killed processes left in a folder.

    Files of running processes are locked.
    """
    removed = []
    for path in Path(folder).glob("*.tmp"):
        if not re.search(r"(\.pth|\.safetensors|^last_checkpoint)\.\d+\.tmp$", path.name):
            continue
        with path.open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            path.unlink()
            removed.append(path)
    return removed


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
