"""What a checkpoint from a stranger may ask of a machine: bounded before and after it is read."""

import mmap
import re
import zipfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_UNPACKED = 2**30  # bytes that any archive may unpack to,
_RATIO = 16  # and that a larger one may, as multiple of its own size
_SLACK = 2**26  # bytes that tensors may declare without the file holding them,
_SHARED = 4  # and how often the file's bytes may be declared: tied weights, views
_VALUES = 10**7  # how many numbers, strings, containers and tensors it may hold
_BLOCK = 2**20
_BYTEARRAY = re.compile(rb"c(?:__builtin__|builtins)\nbytearray\n")


class CheckpointError(ValueError):
    """A file that is no checkpoint, holds more than weights, or belongs to another model."""


def is_archive(path: Path) -> bool:
    """Whether torch reads the file as a zip archive."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def check_file(path: Path) -> int:
    """Looks at a file before it is read: what it would unpack to, its checksums, its demands.

    Args:
        path: Written by ``torch.save``, zip or legacy, or an ``.npz``.

    Returns:
        The bytes that it unpacks to.

    Raises:
        CheckpointError: It would unpack to far more than its size, a checksum is wrong, an array
            declares more than is there, or a ``bytearray`` of any length is asked for.
        zipfile.BadZipFile: It is damaged otherwise.
    """
    size = path.stat().st_size
    if not is_archive(path):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _refuse_bytearray(data, path)
        return size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        declared = sum(entry.file_size for entry in entries)
        if declared > max(_UNPACKED, _RATIO * size):
            raise CheckpointError(
                f"checkpoint {path} of {size} bytes would unpack to {declared} bytes"
            )
        for entry in entries:
            with archive.open(entry) as file:
                if entry.filename.endswith(".npy"):
                    _check_array(file, entry, path)
                elif entry.filename.endswith("/data.pkl"):
                    _refuse_bytearray(file.read(), path)
                while file.read(_BLOCK):  # zipfile compares the checksum at the end, torch does not
                    pass
    return declared


def _refuse_bytearray(data: bytes | mmap.mmap, path: Path) -> None:
    """The only thing that weights-only loading makes, and fills, in any length it is told."""
    if _BYTEARRAY.search(data):
        raise CheckpointError(
            f"checkpoint {path} holds bytearray, which is more than weights; it was not executed"
        )


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
