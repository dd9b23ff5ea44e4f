"""Arguments in a config against the types in a signature."""

import builtins
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Number, Real
from os import PathLike
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_WORDS = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    Number: "a number",
    str: "a text",
    type(None): "None",
}
_NUMBERS = {int: Integral, float: Real, Number: Number}


class _Unknown:
    """Stands for a type that is imported for type checkers only."""

    def __class_getitem__(cls, item: Any) -> type:
        return cls


class _Names(dict):
    """What names in a function's annotations mean."""

    def __init__(self, function: Callable):
        super().__init__({**vars(builtins), **getattr(function, "__globals__", {})})

    def __missing__(self, name: str) -> type:
        return _Unknown


def misfits(component: Callable, arguments: Mapping[str, Any], package: str = "") -> Iterator[str]:
    """Says which arguments are of no type that the signature names.

    Args:
        component: A class or function. Where a class hands on keyword arguments, the signatures of
            its bases count, too.
        arguments: By name; those that the signature does not know are passed over.
        package: Of bases from elsewhere, whose annotations may be wrong, only flags count.

    Yields:
        For each misfit its name, its value and what is allowed.
    """
    hints = _hints(component, package)
    for name, value in arguments.items():
        if name in hints and not _fits(value, hints[name]):
            yield f"{name}={value!r} must be {_words(hints[name])}"


def check_options(name: str, options: Mapping[str, Any], **known: Any) -> None:
    """Refuses options that nobody reads, or of another type.

    Args:
        name: Of the options, for the message.
        options: By name.
        **known: Types, by name.

    Raises:
        ValueError: If one is not among ``known``, or of another type.
    """
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"{name} has {unknown}; only {', '.join(sorted(known))} is known")
    for key, value in options.items():
        if not _fits(value, known[key]):
            raise ValueError(f"{name} {key}={value!r} must be {_words(known[key])}")


def _hints(component: Callable, package: str) -> dict[str, Any]:
    functions = [(component, getattr(component, "__module__", None) or "")]
    if inspect.isclass(component):
        bases = [one for one in component.mro() if "__init__" in vars(one)]
        functions = [(vars(one)["__init__"], one.__module__) for one in bases]
    found: dict[str, Any] = {}
    for function, module in functions:
        try:
            hints = get_type_hints(function, localns=_Names(function))
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # of builtins
            break
        if not module.startswith(package):
            hints = {one.name: bool | None for one in parameters if _is_flag(one, hints)}
        found = {**hints, **found}
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            break
    return found


def _is_flag(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> bool:
    return hints.get(parameter.name, type(parameter.default)) is bool


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Any, _Unknown):
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin in _NUMBERS:
        return isinstance(value, _NUMBERS[origin]) and not isinstance(value, bool)
    if origin is bool:  # 0 and 1 are what people write, too
        return isinstance(value, (bool, Integral)) and value in (0, 1)
    if _is_list(origin):  # configs do not tell lists from tuples
        if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
            return False
        if origin is tuple and inner and ... not in inner:
            return len(value) == len(inner) and all(map(_fits, value, inner))
        return not inner or all(_fits(one, inner[0]) for one in value)
    if origin in (dict, Mapping):
        known = inner[1:] or (Any,)
        return isinstance(value, Mapping) and all(_fits(one, known[0]) for one in value.values())
    if origin in _WORDS:
        return isinstance(value, origin)
    if inspect.isclass(origin):  # an object, or the config of one
        return isinstance(value, (origin, Mapping)) or issubclass(origin, PathLike)
    return True


def _is_list(origin: Any) -> bool:
    return origin in (list, tuple, Sequence)


def _words(hint: Any) -> str:
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_words, inner)))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if _is_list(origin):
        kinds = [one for one in inner if one is not ...]
        if not kinds:
            return "a list"
        if origin is tuple and ... not in inner:
            return f"({', '.join(map(_words, kinds))})"
        return f"a list, each {_words(kinds[0])}"
    if origin in (dict, Mapping):
        return f"a dict, each {_words(inner[1])}" if inner and inner[1] is not Any else "a dict"
    return _WORDS.get(origin) or f"the config of a {getattr(origin, '__name__', origin)}"
