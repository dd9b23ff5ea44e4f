"""Folders and name lists of a dataset."""

import os

from mmengine import fileio
from mmseg.datasets import BaseSegDataset

from ...errors import DataError
from ..timm_dataset import TimmDataset


def searched(dataset: BaseSegDataset | TimmDataset) -> str:
    """Describe where a dataset searches for its files."""
    if isinstance(dataset, TimmDataset):
        return str(dataset.folder or dataset.tar)
    folders = dataset.data_prefix
    names = f", names from {dataset.ann_file}" if has_name_list(dataset) else ""
    return (
        f"images {folders.get('img_path')}/*{dataset.img_suffix}, "
        f"labels {folders.get('seg_map_path')}/*{dataset.seg_map_suffix}{names}"
    )


def require_folders(dataset: BaseSegDataset) -> None:
    """Raise DataError unless the folders of a dataset exist, without listing them."""
    folders = dataset.data_prefix.get("img_path"), dataset.data_prefix.get("seg_map_path")
    for path in filter(None, (dataset.ann_file, *folders)):
        if not fileio.exists(path, backend_args=dataset.backend_args):
            raise DataError(
                f"{type(dataset).__name__}: not found: {path!r} (working folder {os.getcwd()}); "
                f"expected layout: {searched(dataset)}, each label named as its image"
                f"{getattr(dataset, 'HINT', '')}"
            )


def has_name_list(dataset: BaseSegDataset) -> bool:
    """Tell a list of names from a folder, or nothing, in ``ann_file``."""
    return bool(dataset.ann_file) and not os.path.isdir(dataset.ann_file)


def refuse_blank_lines(dataset: BaseSegDataset) -> None:
    """Raise DataError for a blank line in a list of names, which would be an image ``.png``."""
    if not dataset.ann_file or not fileio.isfile(dataset.ann_file, dataset.backend_args):
        return
    text = fileio.get_text(dataset.ann_file, backend_args=dataset.backend_args)
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            raise DataError(f"{dataset.ann_file}: line {number} is blank, remove it")
