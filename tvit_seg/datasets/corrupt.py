"""Corrupt images in training: an error that names them, or skipping and counting."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset, Compose
from mmengine.registry import DATASETS
from mmseg.datasets import BaseSegDataset
from torch.utils.data import Dataset

from ..errors import CorruptImageError, DataError
from .palette import use_file_palette
from .reader import FileReader

_IN_A_ROW = 100


class SkipCorrupt(Dataset):
    """A dataset that replaces corrupt images by others, chosen at random.

    In ``data_samples`` of a replacement, ``skipped`` lists the errors of the replaced images.
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
        """Return the sample, or another one in its place.

        Raises:
            DataError: 100 samples in a row are corrupt, or a file is missing.
        """
        skipped: list[str] = []
        while len(skipped) < _IN_A_ROW:
            try:
                sample = self.dataset[index]
            except CorruptImageError as error:
                skipped.append(str(error))
                index = np.random.randint(len(self))  # noqa: NPY002, seeded in every process
            else:
                if skipped:
                    sample["data_samples"].set_metainfo(dict(skipped=skipped))
                return sample
        raise DataError(f"{_IN_A_ROW} corrupt images in a row, the last one: {skipped[-1]}")


class GuardedPipeline(Compose):
    """A dataset's transforms that raise ``CorruptImageError`` if a file is the cause.

    Samples without a label map pass over the steps that would load it.
    """

    def __init__(self, pipeline: Compose, backend_args: dict | None):
        super().__init__(pipeline.transforms)
        self.reader = FileReader(self.transforms, backend_args)

    def __call__(self, data: dict) -> dict | None:
        """Run the transforms on the sample of ``img_path`` and, if given, ``seg_map_path``.

        Raises:
            CorruptImageError: One of these files cannot be decoded.
            DataError: One is missing.
        """
        readers = dict(img_path=self.reader.image, seg_map_path=self.reader.label)
        paths = {key: data[key] for key in readers if data.get(key)}
        info = dict(data)
        for key, path in paths.items():
            self.reader.require_whole(key, path, decode_others=False)
        unlabelled = "img_path" in paths and "seg_map_path" not in paths
        try:
            for step in self.reader.without_labels() if unlabelled else self.transforms:
                data = step(data)
                if data is None:
                    return None
        except Exception:
            for key in paths:  # raises if the file is the cause
                readers[key](info)
            raise
        return data


def build_guarded(cfg: dict) -> Dataset:
    """Build a dataset with guarded pipelines, which skips if ``cfg`` has ``skip_corrupt=True``."""
    cfg = copy.deepcopy(cfg)
    skip = pop_skip_corrupt(cfg)
    dataset = DATASETS.build(cfg)
    for part in unwrap(dataset):
        if isinstance(part, BaseSegDataset) and part._fully_initialized and len(part):
            use_file_palette(part, part.get_data_info(0).get("seg_map_path", ""))
        if isinstance(part, BaseDataset):
            part.pipeline = GuardedPipeline(part.pipeline, getattr(part, "backend_args", None))
    return SkipCorrupt(dataset) if skip else dataset


def reader_of(dataset: Dataset | None) -> FileReader:
    """Make the reader of a dataset's files; of several datasets it is that of the first."""
    part = next(unwrap(dataset))
    pipeline = getattr(part, "pipeline", None)
    return FileReader(getattr(pipeline, "transforms", ()), getattr(part, "backend_args", None))


def unwrap(dataset: Dataset) -> Iterator[Dataset]:
    """Yield the datasets inside of wrappers such as ``RepeatDataset`` and ``ConcatDataset``."""
    if hasattr(dataset, "datasets"):
        for inner in dataset.datasets:
            yield from unwrap(inner)
    elif hasattr(dataset, "dataset"):
        yield from unwrap(dataset.dataset)
    else:
        yield dataset


def unwrap_config(cfg: dict) -> Iterator[dict]:
    """Yield the config of a dataset and of all that it wraps, outermost first."""
    yield cfg
    for inner in (cfg.get("dataset"), *(cfg.get("datasets") or ())):
        if isinstance(inner, dict):
            yield from unwrap_config(inner)


def pop_skip_corrupt(cfg: dict) -> bool:
    """Remove ``skip_corrupt`` from the config of a dataset and of all that it wraps."""
    asked = [part.pop("skip_corrupt", False) for part in unwrap_config(cfg)]
    return any(asked)


def skips_corrupt(loader: dict | None) -> bool:
    """Return whether the config of a dataloader asks to skip corrupt images."""
    dataset = loader.get("dataset") if isinstance(loader, dict) else None
    return isinstance(dataset, dict) and pop_skip_corrupt(copy.deepcopy(dataset))
