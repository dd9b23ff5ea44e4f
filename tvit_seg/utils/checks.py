"""Checks of arguments; each message names the argument, the allowed values, and the value."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from math import inf
from numbers import Integral, Real
from typing import Any

from ..errors import ConfigError


def check(fits: bool, name: str, value: Any, allowed: str) -> None:
    """Raise ``ConfigError`` unless an argument fits.

    Args:
        fits: The condition, already evaluated.
        name: Name of the argument, as the user wrote it.
        value: Of the argument.
        allowed: Completes "must be ...".
    """
    if not fits:
        raise ConfigError(f"{name} must be {allowed}, got {value!r}")


def check_integer(name: str, value: Any, minimum: int = 1) -> int:
    """Return an integer of at least ``minimum``; bools are rejected."""
    fits = isinstance(value, Integral) and not isinstance(value, bool) and value >= minimum
    check(fits, name, value, f"an integer >= {minimum}")
    return int(value)


def check_index(name: str, value: Any, length: int) -> int:
    """Return an index of a sequence, counted from 0; negative ones count from the end."""
    fits = isinstance(value, Integral) and not isinstance(value, bool) and -length <= value < length
    check(fits, name, value, f"an integer in [{-length}, {length - 1}]")
    return int(value) % length


def check_number(name: str, value: Any, minimum: float = 0.0, maximum: float = inf) -> float:
    """Return a number in ``[minimum, maximum]``; bools and NaN are rejected."""
    fits = isinstance(value, Real) and not isinstance(value, bool) and minimum <= value <= maximum
    span = f"a number >= {minimum:g}" if maximum == inf else f"in [{minimum:g}, {maximum:g}]"
    check(fits, name, value, span)
    return float(value)


def check_choice(name: str, value: Any, choices: Collection[Any]) -> Any:
    """Return a value that is one of ``choices``."""
    check(value in choices, name, value, f"one of {', '.join(map(repr, choices))}")
    return value


def check_keys(name: str, options: Iterable[str], allowed: Iterable[str]) -> None:
    """Reject keys of ``options`` that are not ``allowed``; suggest the nearest allowed one."""
    for key in options:
        if key not in allowed:
            raise ConfigError(f"{name} has no option {key!r}{did_you_mean(key, allowed)}")


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the end of a message about an unknown name: the nearest known name, or nothing."""
    nearest = get_close_matches(str(name), list(known), n=1, cutoff=cutoff)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
