"""Crafted checkpoint files, by what is wrong with them.

``CODE`` would run a command when unpickled; ``ABSURD`` holds nothing but data, which no machine
should be made to read. More of that, made of few opcodes or names, is in ``poison_pickles``; other
formats are in ``poison_arrays``.
"""

import _codecs
import builtins
import importlib
import io
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

WEIGHTS = {"head.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.zeros(2)}


class Call:
    """Calls a function, itself made by a call or not, when it is unpickled."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args

    def __call__(self):
        raise AssertionError("only unpickling calls it")


def system(marker: Path) -> Call:
    return Call(os.system, f"touch {marker}")


def save(path: Path, content: object, **options) -> None:
    torch.save(content, path, **options)


def rewrite(
    path: Path,
    change: Callable[[str, bytes], bytes],
    compress: bool = False,
    rename: Callable[[str], str] = str,
) -> None:
    """Changes the entries of an archive."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(rename(name), change(name, data))


# ------------------------------------------------------------------------- code


def os_system(path, marker):
    save(path, {"state_dict": WEIGHTS, "meta": system(marker)})


def eval_in_weights(path, marker):
    save(path, {"state_dict": {**WEIGHTS, "w": Call(builtins.eval, f"open({str(marker)!r}, 'w')")}})


def exec_as_key(path, marker):
    save(path, {Call(builtins.exec, f"open({str(marker)!r}, 'w')"): 1, "state_dict": WEIGHTS})


def subprocess_call(path, marker):
    save(path, {"model": WEIGHTS, "args": Call(subprocess.call, ("touch", str(marker)))})


def getattr_chain(path, marker):
    """What allow-listing ``getattr`` for mmengine's HistoryBuffer would let through."""
    module = Call(importlib.import_module, "os")
    save(
        path, {"state_dict": WEIGHTS, "x": Call(Call(getattr, module, "system"), f"touch {marker}")}
    )


def in_optimizer_state(path, marker):
    state = {"state": {0: {"step": system(marker)}}, "param_groups": []}
    save(path, {"state_dict": WEIGHTS, "meta": {}, "optimizer": state})


def in_log_curves(path, marker):
    hub = {"log_scalars": {"train/loss": [system(marker)]}, "runtime_info": {}}
    save(path, {"state_dict": WEIGHTS, "meta": {"epoch": 1, "iter": 1}, "message_hub": hub})


def in_state_of_ordered_dict(path, marker):
    weights = OrderedDict(WEIGHTS)
    weights._metadata = system(marker)
    save(path, {"state_dict": weights})


def legacy(path, marker):
    content = {"state_dict": WEIGHTS, "meta": system(marker)}
    save(path, content, _use_new_zipfile_serialization=False)


def legacy_tar(path, marker):
    evil = pickle.dumps(system(marker), protocol=2)
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = len(evil)
            archive.addfile(info, io.BytesIO(evil))


def bare(protocol):
    def write(path, marker):
        path.write_bytes(pickle.dumps({"state_dict": system(marker)}, protocol=protocol))

    return write


def torchscript(path, marker):
    program = torch.jit.script(nn.Linear(1, 1))
    torch.jit.save(program, str(path))


def pickle_as_safetensors(path, marker):
    bare(2)(path, marker)


def objects_in_arrays(path, marker):
    np.savez(path, **{"param/a": np.array([system(marker)])})


def pickle_as_arrays(path, marker):
    bare(2)(path, marker)


CODE: dict[str, tuple[Callable, str]] = {
    "os_system": (os_system, ".pth"),
    "eval_in_weights": (eval_in_weights, ".pth"),
    "exec_as_key": (exec_as_key, ".pth"),
    "subprocess_call": (subprocess_call, ".bin"),
    "getattr_chain": (getattr_chain, ".pth"),
    "in_optimizer_state": (in_optimizer_state, ".pth"),
    "in_log_curves": (in_log_curves, ".pth"),
    "in_state_of_ordered_dict": (in_state_of_ordered_dict, ".pth"),
    "legacy": (legacy, ".pth"),
    "legacy_tar": (legacy_tar, ".pth"),
    "bare_protocol_0": (bare(0), ".pth"),
    "bare_protocol_2": (bare(2), ".pkl"),
    "bare_protocol_4": (bare(4), ".pth"),
    "bare_protocol_5": (bare(5), ".pt"),
    "torchscript": (torchscript, ".pt"),
    "pickle_as_safetensors": (pickle_as_safetensors, ".safetensors"),
    "objects_in_arrays": (objects_in_arrays, ".npz"),
    "pickle_as_arrays": (pickle_as_arrays, ".npz"),
}

# ----------------------------------------------------------------------- absurd


def history_buffer(path, marker):
    """Harmless, but not weights: mmengine's own checkpoints have it."""
    hub = {"log_scalars": {"train/loss": HistoryBuffer([1.0], [1])}}
    save(path, {"state_dict": WEIGHTS, "message_hub": hub})


def expanded(path, marker):
    save(path, {"state_dict": {"w": torch.zeros(1).expand(10**6, 10**6)}})


def many_views(path, marker):
    weight = torch.zeros(2**20)
    save(path, {"state_dict": {f"w{i}": weight.view(2, -1).T for i in range(200)}})


def meta_tensor(path, marker):
    save(path, {"state_dict": {"w": torch.zeros(10**6, 10**6, device="meta")}})


def sparse(path, marker):
    empty = torch.zeros(2, 0, dtype=torch.long)
    weight = torch.sparse_coo_tensor(empty, torch.zeros(0), (10**6, 10**6))
    save(path, {"state_dict": {"w": weight}})


def quantized(path, marker):
    weight = torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8)
    save(path, {"state_dict": {"w": weight}})


def larger_than_its_record(path, marker):
    save(path, {"state_dict": {"w": torch.arange(300.0)}})
    many = struct.pack("<i", 3 * 10**8)
    rewrite(path, lambda name, data: data.replace(b"M\x2c\x01", b"J" + many))


def legacy_declares_much(path, marker):
    save(path, {"state_dict": {"w": torch.arange(300.0)}}, _use_new_zipfile_serialization=False)
    many = b"\x8a\x06" + (10**12).to_bytes(6, "little")  # a pickled long
    path.write_bytes(path.read_bytes().replace(b"M\x2c\x01", many))


def zip_bomb(path, marker):
    save(path, {"state_dict": WEIGHTS})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for i in range(12):
            with archive.open(f"{path.stem}/data/{i + 7}", "w", force_zip64=True) as entry:
                for _ in range(10):
                    entry.write(bytes(2**24))


def overlapping_bomb(path, marker):
    """A hundred thousand entries of the directory share one entry of the file."""
    save(path, {"state_dict": WEIGHTS})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{path.stem}/data/7", bytes(2**20))
        info = archive.filelist[-1]
        for i in range(2000):
            twin = zipfile.ZipInfo(f"{path.stem}/data/{i + 8}")
            for field in ("file_size", "compress_size", "CRC", "header_offset", "compress_type"):
                setattr(twin, field, getattr(info, field))
            archive.filelist.append(twin)
        archive._didModify = True


def huge_bytearray(path, marker):
    save(path, {"state_dict": WEIGHTS, "x": Call(bytearray, 10**12)})


def legacy_bytearray(path, marker):
    content = {"state_dict": WEIGHTS, "x": Call(bytearray, 10**12)}
    save(path, content, _use_new_zipfile_serialization=False)


def bytearray_in_capitals(path, marker):
    """torch finds its records whatever their case is."""
    huge_bytearray(path, marker)
    rewrite(path, lambda name, data: data, rename=lambda name: name.replace("data.pkl", "DATA.PKL"))


def growing_bytes(path, marker):
    """Each turn doubles them."""
    content = Call(_codecs.encode, "a" * 16, "latin1")
    for _ in range(40):
        content = Call(_codecs.encode, content, "hex")
    save(path, {"state_dict": WEIGHTS, "x": content})


def two_directories(path, marker):
    """Python's reader believes that the first archive stands before the one that counts."""
    archives = []
    for make in (huge_bytearray, lambda path, marker: save(path, {"state_dict": WEIGHTS})):
        make(path, marker)
        rewrite(path, lambda name, data: data)  # in its plainest form
        archives.append(path.read_bytes())
    (evil, (_, start)), (good, (good_size, good_start)) = (
        (data, struct.unpack("<II", data[-10:-2])) for data in archives
    )
    entries, place = bytearray(good[good_start:-22]), 0
    while place < good_size:
        lengths = struct.unpack_from("<HHH", entries, place + 28)
        (offset,) = struct.unpack_from("<I", entries, place + 42)
        struct.pack_into("<I", entries, place + 42, offset - good_start + start)
        place += 46 + sum(lengths)
    ending = good[-22:-10] + struct.pack("<IIH", good_size, start, 0)
    path.write_bytes(evil[:-22] + good[:good_start] + entries + ending)


def huge_tensor_by_call(path, marker):
    save(path, {"state_dict": {"w": Call(torch.Tensor, 10**6, 10**6)}})


def billion_laughs(path, marker):
    text = ["ha"] * 10
    for _ in range(12):
        text = [text] * 10
    save(path, {"state_dict": WEIGHTS, "meta": {"dataset_meta": text}})


def holds_itself(path, marker):
    loop = {}
    loop["meta"] = loop
    save(path, {"state_dict": WEIGHTS, "meta": loop})


def nested_deeply(path, marker):
    """A bare pickle of a hundred thousand lists in each other."""
    depth = 10**5
    lists = b"]" * depth + b"a" * (depth - 1)
    magic, version = (pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001))
    info = pickle.dumps({"little_endian": True}, 2)
    path.write_bytes(
        magic + version + info + b"\x80\x02}X\x01\x00\x00\x00x" + lists + b"s." + b"]."
    )


def nan(path, marker):
    save(path, {"state_dict": {**WEIGHTS, "w": torch.tensor([1.0, float("nan")])}})


def infinite(path, marker):
    save(path, {"state_dict": {**WEIGHTS, "w": torch.tensor([1.0, float("-inf")]).half()}})


def nan_in_optimizer(path, marker):
    state = {"state": {0: {"exp_avg": torch.full((2,), float("nan"))}}, "param_groups": []}
    save(path, {"state_dict": WEIGHTS, "optimizer": state})


def flipped_bit(path, marker):
    save(path, {"state_dict": {"w": torch.arange(300.0)}})
    content = bytearray(path.read_bytes())
    place = content.find(torch.arange(300.0).numpy().tobytes()[:64])
    content[place + 100] ^= 1
    path.write_bytes(content)


def truncated(path, marker):
    save(path, {"state_dict": {"w": torch.zeros(1000)}})
    path.write_bytes(path.read_bytes()[:2000])


def empty(path, marker):
    path.touch()


def a_list(path, marker):
    save(path, [WEIGHTS])


ABSURD: dict[str, tuple[Callable, str]] = {
    "history_buffer": (history_buffer, ".pth"),
    "expanded": (expanded, ".pth"),
    "many_views": (many_views, ".pth"),
    "meta_tensor": (meta_tensor, ".pth"),
    "sparse": (sparse, ".pth"),
    "quantized": (quantized, ".pth"),
    "larger_than_its_record": (larger_than_its_record, ".pth"),
    "legacy_declares_much": (legacy_declares_much, ".pth"),
    "zip_bomb": (zip_bomb, ".pth"),
    "overlapping_bomb": (overlapping_bomb, ".pth"),
    "huge_bytearray": (huge_bytearray, ".pth"),
    "legacy_bytearray": (legacy_bytearray, ".pth"),
    "bytearray_in_capitals": (bytearray_in_capitals, ".pth"),
    "growing_bytes": (growing_bytes, ".pth"),
    "two_directories": (two_directories, ".pth"),
    "huge_tensor_by_call": (huge_tensor_by_call, ".pth"),
    "billion_laughs": (billion_laughs, ".pth"),
    "holds_itself": (holds_itself, ".pth"),
    "nested_deeply": (nested_deeply, ".pth"),
    "nan": (nan, ".pth"),
    "infinite": (infinite, ".pth"),
    "nan_in_optimizer": (nan_in_optimizer, ".pth"),
    "flipped_bit": (flipped_bit, ".pth"),
    "truncated": (truncated, ".pth"),
    "empty": (empty, ".pth"),
    "a_list": (a_list, ".pth"),
}
