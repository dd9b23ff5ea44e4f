"""Parts of messages: lists of names, and what other errors say."""

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


def first_line(error: BaseException, most: int = 200) -> str:
    """What an error says, cut to one line.

    Args:
        error: Its text may have many lines, or none.
        most: How many characters at most.

    Returns:
        The text; the name of the error's class where there is none.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:most] if lines else type(error).__name__
