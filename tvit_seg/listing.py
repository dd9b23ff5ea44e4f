"""Lists of names in messages."""

from collections.abc import Iterable


def some(names: Iterable[str], most: int = 5, separator: str = ", ") -> str:
    """The first few names, and how many more there are.

    Args:
        names: Any number of them.
        most: How many to name.
        separator: Stands between them.

    Returns:
        The text; ``none`` for no names.
    """
    names = list(names)
    more = [f"... and {len(names) - most} more"] if len(names) > most else []
    return separator.join([*names[:most], *more]) or "none"
