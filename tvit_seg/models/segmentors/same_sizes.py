"""Batches of images of several sizes, which mmseg's data preprocessor refuses."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any


def same_sizes(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Split a batch from a dataloader where the size changes, so that the order is kept.

    Args:
        batch: ``inputs``, a tensor (B, C, H, W) or a list of (C, H, W), and other lists of B.
    """
    start = 0
    for _, run in groupby(batch["inputs"], key=lambda image: image.shape):
        stop = start + len(list(run))
        yield {k: None if v is None else v[start:stop] for k, v in batch.items()}
        start = stop
