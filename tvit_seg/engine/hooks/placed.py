"""Random numbers of loading that depend on which sample it is, not on who loads it and when.

A loading process draws from a stream of its own, and how far that is depends on how many processes
there are and since when they run. So a sampler numbers what it draws, and the dataset seeds itself
anew for each sample: a resumed training finds the numbers again, with any number of processes.
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from torch.utils.data import Dataset


class Placed(int):
    """An index into a dataset that carries what to seed the loading of its sample with.

    Args:
        index: In [0, len).
        key: Numbers of 0 or above: seed, process, epoch, place in the epoch.
    """

    key: tuple[int, ...]

    def __new__(cls, index: int, key: tuple[int, ...]):
        placed = super().__new__(cls, index)
        placed.key = key
        return placed

    def __getnewargs__(self) -> tuple[int, tuple[int, ...]]:
        return int(self), self.key


class _Numbers:
    """The part that :func:`numbering` adds to a sampler."""

    _start = 0

    def __iter__(self) -> Iterator[Placed]:
        key = (getattr(self, "seed", 0), get_rank(), getattr(self, "epoch", 0))
        for place, index in enumerate(super().__iter__(), self._start):
            yield Placed(index, (*key, place))


class _NumbersAfterSkipping(_Numbers):
    def skip(self, count: int) -> None:
        super().skip(count)
        self._start += count


def numbering(kind: type) -> type:
    """A class of samplers that draws :class:`Placed` indices.

    Args:
        kind: A class of samplers; ``seed`` and ``epoch`` of its objects count where they have them.
    """
    part = _NumbersAfterSkipping if hasattr(kind, "skip") else _Numbers
    return type(kind.__name__, (part, kind), {})


class SeededDataset(Dataset):
    """A dataset whose sample at a :class:`Placed` index is always the same.

    Args:
        dataset: Draws from ``random``, ``numpy.random`` or torch.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, index: int) -> dict:
        """The sample.

        Args:
            index: In [0, len).
        """
        if isinstance(index, Placed):
            numbers = np.random.SeedSequence(index.key).generate_state(3)
            random.seed(int(numbers[0]))
            np.random.seed(numbers[1])  # noqa: NPY002, pipelines and timm draw from it
            torch.default_generator.manual_seed(int(numbers[2]))
        return self.dataset[int(index)]
