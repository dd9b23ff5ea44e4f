"""Parts of messages: lists of names, and the text of other errors; JSON."""

import json
from collections.abc import Iterable
from math import isfinite, isnan
from typing import Any


def some(names: Iterable[str], most: int = 5, separator: str = ", ") -> str:
    """Name the first few and count the rest; ``none`` for no names."""
    names = [printable(name, 200) for name in names]
    more = [f"... and {len(names) - most} more"] if len(names) > most else []
    return separator.join([*names[:most], *more]) or "none"


def first_line(error: BaseException, most: int = 200) -> str:
    """Cut the text of an error to one line; without text, return the name of its class."""
    lines = str(error).strip().splitlines()
    return printable(lines[0][:most]) if lines else type(error).__name__


def printable(text: str, most: int = 3000) -> str:
    """Escape control characters, which could break a line or control a terminal.

    The middle of a text longer than ``most`` characters is left out.
    """
    if len(text) > most:
        text = f"{text[: most // 2]} ... {text[-most // 2 :]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def to_json(value: Any, **options: Any) -> str:
    """Serialise with infinity as ``"inf"`` and NaN as null, since JSON has neither."""
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not isfinite(value):
        return None if isnan(value) else str(value)
    return value
