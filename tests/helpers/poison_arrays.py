"""Crafted ``.safetensors`` files and archives of arrays that declare what is not there."""

import json
import struct
import zipfile
from collections.abc import Callable

import numpy as np


def safetensors(header: bytes | dict, length: int | None = None, data: bytes = b""):
    def write(path, marker):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", length or len(text)) + text + data)

    return write


def array(shape, name="param/w.npy"):
    def write(path, marker):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(8)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, content)

    return write


def array_bomb(path, marker):
    np.savez_compressed(path, w=np.zeros(3 * 10**8, np.float32))


_ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
_HUGE = {**_ONE, "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
_NAN = struct.pack("<2f", float("nan"), 0)

ARRAYS: dict[str, tuple[Callable, str]] = {
    "safetensors_no_json": (safetensors(b"{'w': 1}"), ".safetensors"),
    "safetensors_long_header": (safetensors(b"{}", length=2**62), ".safetensors"),
    "safetensors_huge": (safetensors({"w": _HUGE}, data=bytes(8)), ".safetensors"),
    "safetensors_wrong_shape": (
        safetensors({"w": {**_ONE, "shape": [9]}}, data=bytes(8)),
        ".safetensors",
    ),
    "safetensors_overlapping": (safetensors({"a": _ONE, "b": _ONE}, data=bytes(8)), ".safetensors"),
    "safetensors_nan": (safetensors({"w": _ONE}, data=_NAN), ".safetensors"),
    "safetensors_record": (
        safetensors({"__metadata__": {"tvit_seg": "[1]"}, "w": _ONE}, data=bytes(8)),
        ".safetensors",
    ),
    "safetensors_float4": (
        safetensors({"w": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}, data=bytes(2)),
        ".safetensors",
    ),
    "array_huge": (array((10**6, 10**6)), ".npz"),
    "array_without_suffix": (array((10**6, 10**6), "param/w"), ".npz"),
    "array_negative": (array((-1, 5)), ".npz"),
    "array_bomb": (array_bomb, ".npz"),
}
