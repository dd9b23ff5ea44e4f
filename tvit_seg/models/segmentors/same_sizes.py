"""Batches of images of several sizes, which mmseg's data preprocessor refuses."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from typing import Any

from mmseg.models import BaseSegmentor


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


def take_any_sizes(model: BaseSegmentor) -> None:
    """Let a segmentor's validation and test steps take batches of images of several sizes."""
    for name in ("val_step", "test_step"):
        setattr(model, name, partial(step_by_size, getattr(model, name)))


def step_by_size(step: Callable[[dict], list], data: dict[str, Any]) -> list:
    """Run a step on each part of :func:`same_sizes`; return the results in the batch's order."""
    return [sample for part in same_sizes(data) for sample in step(part)]
