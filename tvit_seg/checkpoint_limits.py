"""What a checkpoint from a stranger may ask of a machine: bounded before and after it is read."""

import os
import struct
import zipfile
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.lib.format import MAGIC_PREFIX
from torch import Tensor

_UNPACKED = 2**30  # bytes that any archive may unpack to,
_RATIO = 16  # and that a larger one may, as multiple of its own size
_SLACK = 2**26  # bytes that tensors may declare without the file holding them,
_SHARED = 4  # and how often the file's bytes may be declared: tied weights, views
_VALUES = 10**7  # how many numbers, strings, containers and tensors it may hold
_BLOCK = 2**20
_GROWING = {
    b"builtin__\nbytearray\n": "bytearray",
    b"builtins\nbytearray\n": "bytearray",
    b"_codecs\nencode\n": "bytes",
}
"""What weights-only loading calls, and what grows without bound by it; weights need neither."""


class CheckpointError(ValueError):
    """A file that is no checkpoint, holds more than weights, or belongs to another model."""


def is_archive(path: Path) -> bool:
    """Whether torch reads the file as a zip archive."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def check_file(path: Path, trust: bool = False) -> int:
    """Looks at a file before it is read: what it would unpack to, its checksums, its demands.

    Args:
        path: Written by ``torch.save``, zip or legacy, or an ``.npz``.
        trust: Whether it may call what makes bytes.

    Returns:
        The bytes that it unpacks to.

    Raises:
        CheckpointError: It would unpack to far more than its size, a checksum is wrong, an array
            declares more than is there, its directory is ambiguous, or bytes of any length are
            asked for.
        zipfile.BadZipFile: It is damaged otherwise.
    """
    size = path.stat().st_size
    if not is_archive(path):
        with path.open("rb") as file:
            growing = _scan(file)
        if growing and not trust:
            raise CheckpointError(_holds(path, growing))
        return size
    growing = set()
    with zipfile.ZipFile(path) as archive:
        _check_directory(path)
        entries = archive.infolist()
        declared = sum(entry.file_size for entry in entries)
        if declared > max(_UNPACKED, _RATIO * size):
            raise CheckpointError(
                f"checkpoint {path} of {size} bytes would unpack to {declared} bytes"
            )
        for entry in entries:  # whatever their names: torch finds DATA.PKL, too, numpy any array
            with archive.open(entry) as file:
                if file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX:
                    file.seek(0)
                    _check_array(file, entry, path)
                file.seek(0)
                growing |= _scan(file)
    if growing and not trust:
        # files with more than weights often have bytes in it: then name that
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        raise CheckpointError(_holds(path, unsafe or growing))
    return declared


def _holds(path: Path, names: Iterable[str]) -> str:
    names = ", ".join(sorted(names)[:3])
    return f"checkpoint {path} holds {names}, which is more than weights; it was not executed"


def _check_directory(path: Path) -> None:
    """An archive's directory must lie right before its end: else torch and Python see others."""
    with path.open("rb") as file:
        end = file.seek(-22, os.SEEK_END)
        signature, length, start, comment = struct.unpack("<4s8xIIH", file.read())
        file.seek(max(0, end - 76))
        large = file.read(76)  # a record for large archives, and where it is
    if large[56:60] == b"PK\6\7":
        end -= 76
        place, length, start = (
            *struct.unpack("<Q", large[64:72]),
            *struct.unpack("<QQ", large[40:56]),
        )
        signature = signature if place == end and large.startswith(b"PK\6\6") else b""
    if signature != b"PK\5\6" or comment or start + length != end:
        raise CheckpointError(f"checkpoint {path} is an archive with something before or behind it")


def _scan(file: BinaryIO) -> set[str]:
    """Reads to the end, where zipfile compares the checksum, and says what grows."""
    longest, last, found = max(map(len, _GROWING)), b"", set()
    while block := file.read(_BLOCK):
        found |= {name for call, name in _GROWING.items() if call in last + block}
        last = block[-longest:]
    return found


def _check_array(file: Any, entry: zipfile.ZipInfo, path: Path) -> None:
    version = np.lib.format.read_magic(file)
    known = {(1, 0): "1_0", (2, 0): "2_0"}
    if version not in known:
        raise CheckpointError(f"checkpoint {path}: {entry.filename} is of an unknown version")
    read = getattr(np.lib.format, f"read_array_header_{known[version]}")
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise CheckpointError(
            f"checkpoint {path} holds Python objects in {entry.filename}, which is more than "
            "weights; it was not executed"
        )
    if prod(shape) * dtype.itemsize > entry.file_size:
        raise CheckpointError(
            f"checkpoint {path}: {entry.filename} declares {prod(shape)} elements, more than the "
            "file holds"
        )


def check_content(checkpoint: Any, path: Path, held: int) -> None:
    """Looks at what was read, before anybody copies it.

    Args:
        checkpoint: Nested containers.
        path: Of the file, for the message.
        held: Bytes that the file held, unpacked.

    Raises:
        CheckpointError: Tensors declare more elements than the file holds, are sparse, without
            data, NaN or infinite; containers hold themselves, or each other too often to be
            copied.
    """
    try:
        values, tensors = survey(checkpoint)
    except RecursionError as error:
        raise CheckpointError(f"checkpoint {path} is nested too deeply") from error
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {path}: {error}") from error
    if values > _VALUES:
        raise CheckpointError(
            f"checkpoint {path} repeats itself: written out it would hold {values} values"
        )
    for name, x in tensors.items():
        if x.layout != torch.strided or x.is_quantized or x.is_nested or x.device.type == "meta":
            raise CheckpointError(
                f"checkpoint {path}: {name} is no plain tensor ({x.layout}, {x.dtype}, {x.device})"
            )
    if sum(map(_declared, tensors.values())) > _SHARED * held + _SLACK:
        name, x = max(tensors.items(), key=lambda item: _declared(item[1]))
        raise CheckpointError(
            f"checkpoint {path}: {name} {tuple(x.shape)} declares {x.numel()} elements, more than "
            f"a file of {held} bytes holds"
        )
    if bad := [name for name, x in tensors.items() if not is_finite(x)]:
        raise CheckpointError(
            f"checkpoint {path}: {len(bad)} tensors hold NaN or infinity "
            f"({', '.join(bad[:3])}{', ...' * (len(bad) > 3)})"
        )


def _declared(x: Tensor) -> int:
    return x.numel() * x.element_size()


def is_finite(x: Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    if not (x.is_floating_point() or x.is_complex()):
        return True
    return bool(torch.isfinite(x.float() if x.element_size() == 1 else x).all())


def survey(obj: Any) -> tuple[int, dict[str, Tensor]]:
    """Goes through nested containers once, however often they hold each other.

    Args:
        obj: Dicts, lists, tuples, sets; everything else counts as one value.

    Returns:
        How many values there would be if each container were copied wherever it is held, and all
        tensors by the place where they were met first.

    Raises:
        CheckpointError: A container holds itself.
        RecursionError: It is nested too deeply.
    """
    tensors: dict[int, tuple[str, Tensor]] = {}
    counts: dict[int, int] = {}
    entered: set[int] = set()

    def count(part: Any, name: str) -> int:
        if isinstance(part, Tensor):
            tensors.setdefault(id(part), (name or "it", part))
            return 1
        items = _items(part)
        if items is None:
            return 1
        key = id(part)
        if key in entered:
            raise CheckpointError(f"{name or 'it'} holds itself")
        if key not in counts:
            entered.add(key)
            counts[key] = 1 + sum(
                count(inner, f"{name}.{place}" if name else str(place)) for place, inner in items
            )
            entered.remove(key)
        return counts[key]

    total = count(obj, "")
    return total, dict(tensors.values())


def _items(part: Any) -> Iterator[tuple[Any, Any]] | None:
    if isinstance(part, Namespace):
        part = vars(part)
    if isinstance(part, Mapping):
        return iter(part.items())
    if isinstance(part, (list, tuple, set)):
        return enumerate(part)
    return None
