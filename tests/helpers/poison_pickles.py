"""Crafted checkpoint files that deceive with what a pickle may do, with names, or with types."""

import struct
from collections import OrderedDict
from collections.abc import Callable

import torch
from helpers.poison import WEIGHTS, Call, rewrite, save

NAN = {"head.weight": torch.full((2, 3), float("nan")), "head.bias": torch.zeros(2)}


class Dict:
    """Unpickled, it is an ``OrderedDict`` with attributes."""

    def __init__(self, items, attributes):
        self.items, self.attributes = items, attributes

    def __reduce__(self):
        return OrderedDict, (), self.attributes, None, iter(self.items.items())


def text(content: str) -> bytes:
    """As an opcode."""
    data = content.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def long(number: int) -> bytes:
    """As an opcode."""
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def opcodes(*parts: bytes):
    """Beside weights stands what these opcodes build."""

    def write(path, marker):
        save(path, {"state_dict": WEIGHTS, "x": "here"})
        rewrite(path, lambda name, data: data.replace(text("here"), b"".join(parts)))

    return write


def hidden_items(path, marker):
    """What goes through the dict's items sees none."""
    save(path, {"state_dict": Dict(NAN, {"items": torch.Size})})


def items_int(path, marker):
    save(path, {"state_dict": Dict(WEIGHTS, {"items": 5})})


def metadata(path, marker):
    save(path, {"state_dict": Dict(WEIGHTS, {"_metadata": 5})})


def metadata_version(path, marker):
    save(path, {"state_dict": Dict(WEIGHTS, {"_metadata": {"": {"version": "new"}}})})


def tensor_attr(path, marker):
    """What asks the tensor whether it is of floating-point numbers hears no."""
    weight = torch.full((2, 3), float("nan"))
    weight.is_floating_point = weight.is_complex = torch.Size
    save(path, {"state_dict": {**WEIGHTS, "head.weight": weight}})


def hooked(path, marker):
    parameter = torch.nn.Parameter(torch.ones(2))
    found = Call(torch._utils._rebuild_parameter, parameter.data, True, {0: torch.float32})
    save(path, {"state_dict": {"w": found}})


def same_name(path, marker):
    """Two places have one name; the second tensor must not hide the first."""
    save(path, {"state_dict": NAN, "state_dict.head.weight": torch.zeros(1)})


def strange_name(path, marker):
    save(path, {"state_dict": {"a\nb\x1b[31mRED": torch.full((2,), float("nan"))}})


def long_names(path, marker):
    """Written out, the name of the innermost value has sixty million characters."""
    inner: object = torch.full((2,), float("nan"))
    name = "k" * 10**6
    for _ in range(60):
        inner = {name: inner}
    save(path, {"state_dict": inner})


def odd_dtype(dtype):
    def write(path, marker):
        save(
            path,
            {"state_dict": {"w": torch.zeros(4, dtype=torch.uint8).view(getattr(torch, dtype))}},
        )

    return write


def one_storage_many_times(path, marker):
    """Archives are searched whatever the case of a name: the storage would be read each time."""

    def change(name, data):
        return data.replace(text("0"), text("a")).replace(text("1"), text("A"))

    save(path, {"state_dict": {"w": torch.zeros(9), "v": torch.zeros(9)}})
    rewrite(path, change, rename=lambda name: name.replace("data/0", "data/a"))


def legacy_unfilled(path, marker):
    """Its tensors are of a storage that is never read."""
    save(path, {"state_dict": {"w": torch.zeros(9)}}, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    start = data.rindex(b"\x80\x02]q")
    path.write_bytes(data[:start] + b"\x80\x02].")


def tuple_as_key(path, marker):
    """Its hash takes 2 ** 40 steps."""
    opcodes(b"}K\x01\x85", b"q\xffh\xff\x86" * 40, b"K\x01s")(path, marker)


def colliding_keys(path, marker):
    """Their hashes are equal."""
    keys = [long(k * (2**61 - 1)) + b"N" for k in range(9, 3000)]
    opcodes(b"}(", *keys, b"u")(path, marker)


def copies(path, marker):
    """Ten thousand copies of ten thousand numbers."""
    size = b"ctorch\nSize\nq\xfe(" + b"K\x01" * 9999 + b"t\x85q\xffR"
    opcodes(b"](", size, b"h\xfeh\xffR" * 9999, b"e")(path, marker)


def copies_of_copies(path, marker):
    """Each counter is made of another one."""
    items = [text(str(k)) + b"K\x01" for k in range(999)]
    first = b"ccollections\nCounter\nq\xfe}(" + b"".join(items) + b"u\x85R"
    opcodes(b"](", first, b"q\xffh\xfeh\xff\x85R" * 9999, b"e")(path, marker)


PICKLES: dict[str, tuple[Callable, str]] = {
    "hidden_items": (hidden_items, ".pth"),
    "items_int": (items_int, ".pth"),
    "metadata": (metadata, ".pth"),
    "metadata_version": (metadata_version, ".pth"),
    "tensor_attr": (tensor_attr, ".pth"),
    "hooked": (hooked, ".pth"),
    "same_name": (same_name, ".pth"),
    "strange_name": (strange_name, ".pth"),
    "long_names": (long_names, ".pth"),
    "bits8": (odd_dtype("bits8"), ".pth"),
    "one_storage_many_times": (one_storage_many_times, ".pth"),
    "legacy_unfilled": (legacy_unfilled, ".pth"),
    "tuple_as_key": (tuple_as_key, ".pth"),
    "colliding_keys": (colliding_keys, ".pth"),
    "copies": (copies, ".pth"),
    "copies_of_copies": (copies_of_copies, ".pth"),
}
if hasattr(torch, "float4_e2m1fn_x2"):  # from torch 2.8 on
    PICKLES["float4"] = odd_dtype("float4_e2m1fn_x2"), ".pth"
