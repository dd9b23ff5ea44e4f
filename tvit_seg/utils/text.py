"""Parts of messages: lists of names, and the text of other errors."""

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
    names = [printable(name, 200) for name in names]
    more = [f"... and {len(names) - most} more"] if len(names) > most else []
    return separator.join([*names[:most], *more]) or "none"


def first_line(error: BaseException, most: int = 200) -> str:
    """The text of an error, cut to one line.

    Args:
        error: Its text may have many lines, or none.
        most: How many characters at most.

    Returns:
        The text; the name of the error's class where there is none.
    """
    lines = str(error).strip().splitlines()
    return printable(lines[0][:most]) if lines else type(error).__name__


def printable(text: str, most: int = 3000) -> str:
    """A text without control characters, which could break its line or steer a terminal.

    Args:
        text: Maybe out of a stranger's file.
        most: How many characters at most; of a longer text the middle is left out.

    Returns:
        The text, with escapes where such characters were.
    """
    if len(text) > most:
        text = f"{text[: most // 2]} ... {text[-most // 2 :]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
