"""Corrupt images in training: it stops and names them, or passes them over and counts."""

import copy
import os
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from mmengine.dataset import BaseDataset, Compose
from mmengine.registry import DATASETS
from torch.utils.data import Dataset

from ..errors import CorruptImageError, DataError, UnknownFormatError
from ._sample_check import decode_label, image_size, read_bytes
from .images import reading, require_whole

_IN_A_ROW = 100


class SkipCorrupt(Dataset):
    """A dataset whose corrupt images are replaced by others, drawn at random.

    A sample that stands in for others says so: its data sample's ``skipped`` lists what was wrong
    with them.

    Args:
        dataset: Raises :class:`CorruptImageError` for a corrupt image.
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
        """The sample, or another one.

        Args:
            index: In [0, len).

        Raises:
            DataError: If 100 in a row are corrupt, or a file is gone.
        """
        skipped: list[str] = []
        while len(skipped) < _IN_A_ROW:
            try:
                sample = self.dataset[index]
            except CorruptImageError as error:
                skipped.append(str(error))
                index = np.random.randint(len(self))  # noqa: NPY002, seeded in every process
                continue
            if skipped:
                sample["data_samples"].set_metainfo(dict(skipped=skipped))
            return sample
        raise DataError(f"{_IN_A_ROW} corrupt images in a row, the last one: {skipped[-1]}")


class GuardedPipeline(Compose):
    """A dataset's transforms, run only on files that look whole and are not too large.

    Args:
        transforms: The dataset's pipeline.
        backend_args: How the dataset reads its files.
    """

    def __init__(self, transforms: Compose, backend_args: dict | None):
        super().__init__(None)
        self.transforms = transforms.transforms
        self.backend_args = backend_args

    def __call__(self, data: dict) -> dict | None:
        """Runs the transforms.

        Args:
            data: Has ``img_path``, and ``seg_map_path`` where there are labels.

        Raises:
            CorruptImageError: If one of these cannot be decoded, or is too large.
            DataError: If one is gone.
        """
        paths = {kind: data[kind] for kind in ("img_path", "seg_map_path") if data.get(kind)}
        for path in paths.values():
            self._glance(path)
        try:
            return super().__call__(data)
        except Exception:
            for kind, path in paths.items():  # is a file to blame?
                decode = image_size if kind == "img_path" else decode_label
                decode(path, read_bytes(path, self.backend_args))
            raise

    def _glance(self, path: str) -> None:
        """Looks at both ends of a file."""
        try:
            if self.backend_args is None and "://" not in path:
                with reading(path), open(path, "rb") as file:
                    require_whole(file, path, other_formats=False)
            else:
                require_whole(read_bytes(path, self.backend_args), path, other_formats=False)
        except UnknownFormatError:
            if os.path.isfile(path) and cv2.haveImageReader(path):
                raise  # OpenCV would decode it, whatever its size
            # a transform may know it


def build_guarded(cfg: dict) -> Dataset:
    """Builds a dataset of a training or evaluation, guarded against corrupt images.

    Args:
        cfg: Config of a dataset; ``skip_corrupt=True`` in it, or in one that it wraps, passes
            corrupt images over.
    """
    cfg = copy.deepcopy(cfg)
    skip = pop_skip_corrupt(cfg)
    dataset = DATASETS.build(cfg)
    for part in leaves(dataset):
        if isinstance(part, BaseDataset):
            part.pipeline = GuardedPipeline(part.pipeline, getattr(part, "backend_args", None))
    return SkipCorrupt(dataset) if skip else dataset


def leaves(dataset: Dataset) -> Iterator[Dataset]:
    """The datasets inside of wrappers such as ``RepeatDataset`` and ``ConcatDataset``."""
    if hasattr(dataset, "datasets"):
        for inner in dataset.datasets:
            yield from leaves(inner)
    elif hasattr(dataset, "dataset"):
        yield from leaves(dataset.dataset)
    else:
        yield dataset


def pop_skip_corrupt(cfg: dict) -> bool:
    """Takes ``skip_corrupt`` out of the config of a dataset and of those that it wraps."""
    inner = [cfg.get("dataset"), *(cfg.get("datasets") or [])]
    asked = [pop_skip_corrupt(part) for part in inner if isinstance(part, dict)]
    return bool(cfg.pop("skip_corrupt", False)) or any(asked)


def skips_corrupt(loader: dict | None) -> bool:
    """Whether the config of a dataloader asks to pass corrupt images over."""
    dataset = loader.get("dataset") if isinstance(loader, dict) else None
    return isinstance(dataset, dict) and pop_skip_corrupt(copy.deepcopy(dataset))
