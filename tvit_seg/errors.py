"""Errors that a user can mend: a tool prints their message as one line."""

from .utils.text import printable


class TvitSegError(Exception):
    """Base of all errors whose message names what to mend."""


class ConfigError(TvitSegError, ValueError):
    """An argument, option or config that is refused; the message names it and what is allowed."""


class CheckpointError(TvitSegError, ValueError):
    """A file that is no checkpoint, holds more than weights, or belongs to another model.

    Args:
        message: May quote names out of a file, of any characters and length.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class DataError(TvitSegError, ValueError):
    """Data that cannot be trained on; the message may list several files, one a line."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, "\n".join(map(printable, message.split("\n"))))


class CorruptImageError(DataError):
    """An image that cannot be decoded; ``skip_corrupt=True`` passes over it."""


class UnknownFormatError(CorruptImageError):
    """A file that PIL does not take for an image."""


class DivergedError(TvitSegError, FloatingPointError):
    """A loss or weight that is NaN or infinite; the message names what to resume from."""


class ExportError(TvitSegError, ValueError):
    """A model that cannot be exported as asked, or a written graph that is not the model."""
