"""Check of labelled images: every one is decoded, as training would."""

import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from ..errors import DataError
from ..utils.text import some
from . import _check_memory
from .timm_dataset import TimmDataset


def check_images(dataset: TimmDataset, workers: int | None = None, skip: bool = False) -> None:
    """Decodes every image of a folder or tar file, unless an earlier check found the same files.

    Args:
        dataset: Others than folders and tar files are left to their libraries.
        workers: Threads that decode; by default one per CPU, and one for a tar file.
        skip: Whether training passes corrupt images over, so that a warning lists them.

    Raises:
        DataError: If an image cannot be read; the message names the first few.
    """
    files = _files(dataset)
    if files is None:
        return
    fingerprint = _check_memory.fingerprint([(path,) for path in files], np.zeros(0, bool))
    if _check_memory.knows(fingerprint):
        return
    found = [text for text in read_images(dataset, workers) if isinstance(text, str)]
    if found:
        listed = some(found, separator="\n  ")
        text = f"{len(found)} of {len(dataset)} images are bad:\n  {listed}"
        if not skip or len(found) == len(dataset):
            raise DataError(text)
        warnings.warn(f"training passes these over: {text}", stacklevel=2)
        return
    _check_memory.remember(fingerprint, os.path.dirname(files[0]))


def read_images(dataset: TimmDataset, workers: int | None = None) -> list[int | str]:
    """Decodes every image and shows how far it is.

    Args:
        dataset: Of any kind.
        workers: As in :func:`check_images`.

    Returns:
        For each image its label, or what is wrong with it.
    """
    if dataset.folder is None:
        workers = 1  # a tar file is open once

    def read(index: int) -> int | str:
        try:
            return int(dataset.read(index)[1])
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        results = pool.map(read, range(len(dataset)))
        delay = 0 if sys.stderr.isatty() else 2
        return list(tqdm(results, "checking images", len(dataset), delay=delay))


def _files(dataset: TimmDataset) -> list[str] | None:
    """Every file that the images lie in; None if they do not lie in files of our own."""
    if dataset.folder is not None:
        return [dataset.filename(index) for index in range(len(dataset))]
    if dataset.tar is not None:
        return [str(dataset.tar)]
    return None
