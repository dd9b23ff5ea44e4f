"""Rows of the benchmark's table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvit_seg.utils.timing import Contestants


@dataclass(frozen=True)
class Ratio:
    """A ratio of times, or of peak memories.

    Attributes:
        name: Title in the table.
        compute: Computes the ratio from one time, or peak, for each contestant.
        target: Upper bound that the ratio should reach, if there is one.
        memory: Whether it compares peak memories.
    """

    name: str
    compute: Callable[[dict[str, float]], float]
    target: float | None = None
    memory: bool = False


@dataclass(frozen=True)
class Row:
    """Contestants that are measured together.

    Attributes:
        group: Number by which it is selected, with others of its kind.
        contestants: Builds the functions to time, by name.
        ratios: Results of the row.
    """

    group: int
    contestants: Callable[[], Contestants]
    ratios: Sequence[Ratio]


def shape(size: int, batch: int) -> str:
    """Title of a row's images."""
    return f"{size} px, batch {batch}"
