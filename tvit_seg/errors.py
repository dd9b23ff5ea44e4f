"""Errors that a user can fix: tools print only their message."""

from .utils.text import printable


class TvitSegError(Exception):
    """Base of all errors whose message names what to fix."""


class ConfigError(TvitSegError, ValueError):
    """An invalid argument, option or config; the message names it and what is allowed."""


class CheckpointError(TvitSegError, ValueError):
    """A file that is no checkpoint, holds more than weights, or belongs to another model.

    Args:
        message: May quote names from a file, with any characters and of any length.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class DataError(TvitSegError, ValueError):
    """Data that cannot be trained on; the message may list several files, one per line."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, "\n".join(map(printable, message.split("\n"))))


class CorruptImageError(DataError):
    """An image that cannot be decoded; ``skip_corrupt=True`` skips it."""


class UnknownFormatError(CorruptImageError):
    """A file that PIL does not recognise as an image."""


class DivergedError(TvitSegError, FloatingPointError):
    """A loss or weight that is NaN or infinite; the message names what to resume from."""


class ExportError(TvitSegError, ValueError):
    """A model that cannot be exported as requested, or a graph that differs from it."""
