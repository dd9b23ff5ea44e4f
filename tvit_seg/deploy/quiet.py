"""Exporters without their reports, which say at length what the error says in a line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Silences a package's loggers, whatever level they are at; its errors are still raised.

    Args:
        name: Of the package.
    """
    known = [x for x in logging.root.manager.loggerDict if x == name or x.startswith(f"{name}.")]
    loggers = [logging.getLogger(x) for x in known]
    were = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        yield
    finally:
        for logger, was in zip(loggers, were, strict=True):
            logger.disabled = was
