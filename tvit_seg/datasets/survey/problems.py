"""Problems of datasets, as lists for people."""

from collections.abc import Iterable
from dataclasses import dataclass

from ...errors import CorruptImageError, DataError
from ...utils.text import printable


@dataclass(frozen=True)
class Problem:
    """Something in a dataset that must be corrected."""

    kind: str  # groups problems in a report, such as "images without label"
    text: str  # the file, and what is wrong with it
    hint: str = ""  # a way to correct it
    corrupt: bool = False  # a file cannot be decoded, so that skip_corrupt skips it


def by_kind(problems: Iterable[Problem]) -> dict[str, list[str]]:
    """Group the texts of problems."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem.text)
    return kinds


def format_problems(problems: Iterable[Problem], most: int = 5) -> str:
    """Return lines that list the first few problems of each kind."""
    lines = []
    for kind, texts in by_kind(problems).items():
        lines += [f"{len(texts)} x {kind}", *(f"  {printable(text)}" for text in texts[:most])]
        if len(texts) > most:
            lines.append(f"  ... and {len(texts) - most} more")
    return "\n".join(lines)


def unreadable(error: DataError, kind: str) -> Problem:
    """Describe an error in what a file holds."""
    # not the exception itself, which would keep decoded arrays alive
    return Problem(kind, str(error), corrupt=isinstance(error, CorruptImageError))
