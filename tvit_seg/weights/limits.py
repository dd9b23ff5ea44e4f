"""What a checkpoint from a stranger may ask of a machine: bounded before and after it is read."""

import os
import struct
import zipfile
from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import MAGIC_PREFIX
from torch import Tensor

from ..errors import CheckpointError
from ..utils.text import printable, some

_UNPACKED = 2**30  # bytes that any archive may unpack to,
_RATIO = 16  # and that a larger one may, as multiple of its own size
_SLACK = 2**26  # bytes that tensors may declare without the file holding them,
_SHARED = 4  # and how often the file's bytes may be declared: tied weights, views
VALUES = 2 * 10**6  # how many numbers, strings, containers and tensors it may hold
_BLOCK = 2**20

_KINDS = (
    "bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 bfloat16 float16 float32 float64 "
    "complex32 complex64 complex128 "
    "float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu"
)
DTYPES = {getattr(torch, kind) for kind in _KINDS.split() if hasattr(torch, kind)}
"""What tensors may be of; torch cannot even tell whether others are finite."""


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
            declares more than is there, or its directory is ambiguous.
        zipfile.BadZipFile: It is damaged otherwise.
    """
    size = path.stat().st_size
    if not is_archive(path):
        return size
    with zipfile.ZipFile(path) as archive:
        _check_directory(path)
        entries = archive.infolist()
        declared = sum(entry.file_size for entry in entries)
        if declared > max(_UNPACKED, _RATIO * size):
            raise CheckpointError(
                f"checkpoint {path} of {size} bytes would unpack to {declared} bytes"
            )
        for entry in entries:  # whatever their names: numpy finds any array
            with archive.open(entry) as file:
                if file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX:
                    file.seek(0)
                    _check_array(file, entry, path)
                file.seek(0)
                while file.read(_BLOCK):  # to the end, where zipfile compares the checksum
                    pass
    return declared


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
    if values > VALUES:
        raise CheckpointError(
            f"checkpoint {path} repeats itself: written out it would hold {values} values"
        )
    for place, x in tensors:
        if vars(x) or x._backward_hooks:
            raise CheckpointError(f"checkpoint {path}: {place} is a tensor with attributes")
        if x.layout != torch.strided or x.dtype not in DTYPES or x.device.type == "meta":
            raise CheckpointError(
                f"checkpoint {path}: {place} is no plain tensor ({x.layout}, {x.dtype}, {x.device})"
            )
    if sum(_declared(x) for _, x in tensors) > _SHARED * held + _SLACK:
        place, x = max(tensors, key=lambda item: _declared(item[1]))
        raise CheckpointError(
            f"checkpoint {path}: {place} {tuple(x.shape)} declares {x.numel()} elements, more than "
            f"a file of {held} bytes holds"
        )
    if bad := [place for place, x in tensors if not is_finite(x)]:
        raise CheckpointError(
            f"checkpoint {path}: {len(bad)} tensors hold NaN or infinity "
            f"({', '.join(map(str, bad[:3]))}{', ...' * (len(bad) > 3)})"
        )


def _declared(x: Tensor) -> int:
    return x.numel() * x.element_size()


def is_finite(x: Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    if not (x.is_floating_point() or x.is_complex()):
        return True
    return bool(torch.isfinite(x.float() if x.element_size() == 1 else x).all())


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in nested containers; only its text, if wanted, repeats the names."""

    name: Any = None
    above: "Place | None" = None

    def __str__(self) -> str:
        if self.above is None:
            return "it"
        names, place = [], self
        while place.above is not None:
            names.append(printable(str(place.name), 100))
            place = place.above
        return ".".join(reversed(names))


def survey(obj: Any) -> tuple[int, list[tuple[Place, Tensor]]]:
    """Goes through nested containers once, however often they hold each other.

    Args:
        obj: Dicts, lists, tuples, sets; everything else counts as one value.

    Returns:
        How many values there would be if each container were copied wherever it is held, and every
        tensor with the place where it was met first.

    Raises:
        CheckpointError: A container holds itself, or has attributes.
        RecursionError: It is nested too deeply.
    """
    tensors: dict[int, tuple[Place, Tensor]] = {}
    counts: dict[int, int] = {}
    entered: set[int] = set()

    def count(part: Any, place: Place) -> int:
        if isinstance(part, Tensor):
            tensors.setdefault(id(part), (place, part))
            return 1
        items = _items(part, place)
        if items is None:
            return 1
        key = id(part)
        if key in entered:
            raise CheckpointError(f"{place} holds itself")
        if key not in counts:
            entered.add(key)
            counts[key] = 1 + sum(count(inner, Place(name, place)) for name, inner in items)
            entered.remove(key)
        return counts[key]

    return count(obj, Place()), list(tensors.values())


def _items(part: Any, place: Place) -> Iterable[tuple[Any, Any]] | None:
    if isinstance(part, Namespace):
        return vars(part).items()
    if isinstance(part, dict):
        _check_attributes(part, place)
        return dict.items(part)  # an attribute may stand before the method
    if isinstance(part, Mapping):
        return part.items()
    if isinstance(part, (list, tuple, set)):
        return enumerate(part)
    return None


def _check_attributes(part: dict[Any, Any], place: Place) -> None:
    """A state dict has the versions of layers as an attribute, and no dict has others."""
    attributes = dict(getattr(part, "__dict__", {}))
    versions = attributes.pop("_metadata", {})
    if attributes:
        raise CheckpointError(f"{place} is a dict with attributes: {some(map(str, attributes))}")
    good = isinstance(versions, dict) and all(
        isinstance(layer, str)
        and type(known) is dict
        and all(isinstance(value, (str, int, float, type(None))) for value in known.values())
        and isinstance(known.get("version"), (int, type(None)))
        for layer, known in dict.items(versions)
    )
    if not good or getattr(versions, "__dict__", {}):
        raise CheckpointError(f"{place}._metadata does not say the versions of layers")
