"""Check of labelled images: every one is decoded, as training would."""

import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from tvit_seg.datasets import _check_memory
from tvit_seg.datasets.error import DataError
from tvit_seg.datasets.timm_dataset import TimmDataset

_SHOWN = 5  # offending files named in an error


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
    if dataset.folder is None:
        workers = 1  # a tar file is open once

    def broken(index: int) -> str | None:
        try:
            dataset.read(index)
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        results = pool.map(broken, range(len(dataset)))
        delay = 0 if sys.stderr.isatty() else 2
        bar = tqdm(results, "checking images", len(dataset), delay=delay)
        found = [text for text in bar if text]
    if found:
        more = f"\n  ... and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        text = f"{len(found)} of {len(dataset)} images are bad:\n  " + "\n  ".join(found[:_SHOWN])
        if not skip or len(found) == len(dataset):
            raise DataError(text + more)
        warnings.warn(f"training passes these over: {text}{more}", stacklevel=2)
        return
    _check_memory.remember(fingerprint, os.path.dirname(files[0]))


def _files(dataset: TimmDataset) -> list[str] | None:
    """Every file that the images lie in; None if they do not lie in files of our own."""
    if dataset.folder is not None:
        return [dataset.filename(index) for index in range(len(dataset))]
    if dataset.tar is not None:
        return [str(dataset.tar)]
    return None
