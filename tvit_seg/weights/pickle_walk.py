"""What a pickle would build, walked before it is unpickled: weights need very little of it."""

import io
import pickle
from _compat_pickle import IMPORT_MAPPING
from pathlib import Path
from pickletools import genops
from typing import Any, BinaryIO

import torch

from .limits import DTYPES, VALUES, is_archive

_TYPES = "Double Float Half BFloat16 Long Int Short Char Byte Bool ComplexDouble ComplexFloat"
_NAMED = {"torch.storage.UntypedStorage", *map(str, DTYPES)}
_NAMED |= {f"torch.{kind}Storage" for kind in _TYPES.split()}
_LONGEST = 100  # characters in the key of a storage
_LEGACY = 5  # a magic number, a version, the machine, the content, and the keys of the storages


class _Name(str):
    """A class or function that a pickle names."""

    __slots__ = ()


class _Dict(list):
    """The values of a dict."""

    __slots__ = ()


class _Value:
    """What is neither a container nor a possible key: a float, a storage, a tensor."""


_VALUE = _Value()
_TENSOR = (_Value, int, tuple, tuple, bool, _Dict)
_CALLED = {
    "argparse.Namespace": (),  # timm saves its command line's arguments
    "collections.OrderedDict": (),
    "collections.Counter": (_Dict,),  # milestones of torch's schedulers
    "builtins.complex": (_Value, _Value),
    "torch.Size": (tuple,),
    "torch.device": (str, int),
    "torch._utils._rebuild_tensor_v2": (*_TENSOR, _Dict),
    "torch._utils._rebuild_tensor_v3": (*_TENSOR, _Name, _Dict),
    "torch._utils._rebuild_parameter": (_Value, bool, _Dict),
}
"""What may be called, and the kinds of its arguments, of which the last may be absent."""


class _Foreign(Exception):
    """Says what is not weights."""


def find_foreign(path: Path) -> str | None:
    """Says what a file holds that weights do not need, without unpickling anything.

    Args:
        path: Written by ``torch.save``, zip or legacy.

    Returns:
        The name of a class or function, or what else is amiss: keys whose hashes may take for ever,
        or more values than any checkpoint has. None for weights.

    Raises:
        Exception: Of almost any kind; the pickle is damaged, or torch would not read it either.
    """
    try:
        if is_archive(path):
            archive = torch._C.PyTorchFileReader(str(path))  # finds what torch.load finds
            if "constants.pkl" in archive.get_all_records():
                return "a TorchScript program"
            _Walk().run(io.BytesIO(archive.get_record("data.pkl")))
            return None
        with path.open("rb") as file:
            file.seek(257)
            if file.read(5) == b"ustar":
                return "a legacy archive of pickles"
            file.seek(0)
            walk = _Walk()
            keys = [walk.run(file) for _ in range(_LEGACY)][-1]
            if not all(type(key) is str for key in keys) or set(keys) != walk.storages.keys():
                raise pickle.UnpicklingError("not the storages that its tensors are of")
    except _Foreign as found:
        return str(found)
    return None


class _Walk:
    """Does what torch's weights-only unpickler does, with stand-ins for all that is built.

    Texts, whole numbers, truth values and None stand for themselves, as do tuples and lists.

    Attributes:
        storages: What tensors are of, by the key in lower case, as archives find it.
    """

    def __init__(self) -> None:
        self.storages: dict[str, tuple[Any, ...]] = {}
        self._values = 0
        self._start()

    def _start(self) -> None:
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, file: BinaryIO) -> Any:
        """Walks one pickle and returns its stand-in."""
        self._start()
        for opcode, argument, _ in genops(file):
            self._count(1)
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > VALUES:
            raise _Foreign(f"more than {VALUES} values")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "SHORT_BINSTRING":
                stack.append(argument)
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "MARK":
                self._outer.append(stack)
                self._stack = []
            case "TUPLE":
                self._after_mark().append(tuple(stack))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append(_Dict())
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "LONG1":  # larger ones can be made to have the same hash
                stack.append(argument if abs(argument) < 2**60 else _VALUE)
            case "BINFLOAT":
                stack.append(_VALUE)
            case "GLOBAL":
                stack.append(_name(argument))
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                self._after_mark()[-1].extend(stack)
            case "SETITEM":
                key, value = stack[-2:]
                del stack[-2:]
                self._set(key, value)
            case "SETITEMS":
                self._after_mark()
                for key, value in zip(stack[::2], stack[1::2], strict=True):
                    self._set(key, value)
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack.append(self._call(stack.pop(), arguments))
            case "BUILD":
                state = stack.pop()
                if type(state) is not _Dict:
                    raise _Foreign("a state that is no dict")
                self._count(len(state))  # they are copied
            case "BINPERSID":
                stack.append(self._store(stack.pop()))
            case "PROTO" | "STOP":
                pass
            case _:
                raise pickle.UnpicklingError(f"opcode {name}")

    def _after_mark(self) -> list[Any]:
        self._stack = self._outer.pop()
        return self._stack

    def _set(self, key: Any, value: Any) -> None:
        if not _may_be_key(key):
            raise _Foreign("a key that is no text or small number")
        target = self._stack[-1]
        if isinstance(target, _Dict):
            target.append(value)

    def _call(self, function: Any, arguments: Any) -> Any:
        kinds = _CALLED.get(function) if type(function) is _Name else None
        if kinds is None:
            raise _Foreign(f"a call of {function if type(function) is _Name else 'a value'}")
        if type(arguments) is not tuple or len(arguments) > len(kinds):
            raise _Foreign(f"{function} of too much")
        for argument, kind in zip(arguments, kinds, strict=False):
            nested = type(argument) is tuple and not all(map(_may_be_key, argument))
            if type(argument) is not kind or nested:
                raise _Foreign(f"{function} of a {type(argument).__name__.strip('_').lower()}")
            if kind in (tuple, _Dict):
                self._count(len(argument))  # they are copied
        if function == "torch.Size":
            return arguments[0]
        return _Dict(*arguments) if function.startswith("collections.") else _VALUE

    def _store(self, identity: Any) -> Any:
        if type(identity) is not tuple or not 5 <= len(identity) <= 6:
            raise pickle.UnpicklingError("no storage")
        _, kind, key, _, numel = identity[:5]
        plain = all(_may_be_key(part) or type(part) is _Name for part in identity)
        if not plain or type(key) is not str or len(key) > _LONGEST:
            raise pickle.UnpicklingError("a storage without a key")
        found = key, numel, kind if numel else None
        if self.storages.setdefault(key.lower(), found) != found:
            raise _Foreign(f"storage {key} twice")  # it would be read each time
        return _VALUE


def _name(argument: str) -> _Name:
    module, _, attribute = argument.partition(" ")
    name = f"{IMPORT_MAPPING.get(module, module)}.{attribute}"  # protocol 2 writes Python 2's names
    if name not in _NAMED and name not in _CALLED:
        raise _Foreign(name)
    return _Name(name)


def _may_be_key(value: Any) -> bool:
    return value is None or type(value) in (str, int, bool)
