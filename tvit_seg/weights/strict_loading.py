"""mmengine's loading functions, reading as ours do."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader

from .io import read_checkpoint


@contextmanager
def strict_loading() -> Iterator[None]:
    """Has mmengine's own loading functions read strictly, and local files only."""

    def load_from_strict(filename: str, map_location: Any = None) -> dict[str, Any]:
        return read_checkpoint(filename)

    schemes = CheckpointLoader._schemes
    CheckpointLoader._schemes = OrderedDict.fromkeys(schemes, load_from_strict)
    try:
        yield
    finally:
        CheckpointLoader._schemes = schemes
