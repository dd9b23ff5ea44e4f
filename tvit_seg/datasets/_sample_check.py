"""Check of one image and its label, decoded as mmseg decodes them."""

from typing import NamedTuple

import cv2
import numpy as np
from mmengine import fileio
from mmseg.datasets import BaseSegDataset, CityscapesDataset

from ..errors import CorruptImageError, DataError
from .images import open_image, reading, require_whole


class Finding(NamedTuple):
    """What is wrong with a sample."""

    text: str
    hint: str = ""
    corrupt: bool = False
    """Whether a file cannot be decoded, so that ``skip_corrupt`` passes it over."""


class _BadLabel(Exception):
    """One offending label: a text naming the file, and a hint that may be empty."""


def trained_values(dataset: BaseSegDataset) -> np.ndarray:
    """What training sees in place of the values of a label file.

    Args:
        dataset: Gives ``reduce_zero_label`` and ``label_map``.

    Returns:
        A class index or what is ignored, for each of the values 0..255.
    """
    seen = np.arange(256)
    if dataset.reduce_zero_label:
        seen = np.where(seen == 0, 255, seen - 1)
        seen[seen == 254] = 255
    mapped = seen.copy()
    for old, new in (dataset.label_map or {}).items():
        mapped[seen == old] = new
    return mapped


def allowed_values(dataset: BaseSegDataset, num_classes: int) -> np.ndarray:
    """Says which values a label file may hold.

    Args:
        dataset: Gives ``reduce_zero_label``, ``label_map`` and ``ignore_index``.
        num_classes: Number of classes after these.

    Returns:
        256 booleans.
    """
    trained = trained_values(dataset)
    return (trained < num_classes) | (trained == dataset.ignore_index)


def check_sample(
    pair: tuple[str, str], dataset: BaseSegDataset, allowed: np.ndarray
) -> Finding | None:
    """Decodes an image and its label.

    Args:
        pair: Paths of the image and of its label.
        dataset: The data set they belong to.
        allowed: Which of the values 0..255 the label may hold.

    Returns:
        What is wrong; None where all is well.
    """
    problems, _ = inspect_sample(pair, dataset, allowed)
    return problems[0] if problems else None


def inspect_sample(
    pair: tuple[str, str], dataset: BaseSegDataset, allowed: np.ndarray
) -> tuple[list[Finding], dict[int, int]]:
    """Decodes an image and its label, and goes on where something is wrong.

    Args:
        pair: As in :func:`check_sample`.
        dataset: As there.
        allowed: As there.

    Returns:
        All that is wrong; and how many pixels of the label have
        each value that occurs.
    """
    image_path, label_path = pair
    problems, pixels, size = [], {}, None
    try:
        size = image_size(image_path, read_bytes(image_path, dataset.backend_args))
    except DataError as error:  # the exception itself would keep decoded arrays alive
        problems.append(_unreadable(error))
    try:
        label = decode_label(label_path, read_bytes(label_path, dataset.backend_args))
        if label.ndim != 2:
            raise _BadLabel(
                f"{label_path}: label of shape {label.shape}, not single-channel",
                "a label holds one class index per pixel, as a grey or palette PNG; convert "
                "colour-coded ones",
            )
        pixels = _count(label)
        if size is not None:
            _check_size(pair, size, label)
        _check_values(label_path, np.array(list(pixels)), dataset, allowed)
    except DataError as error:
        problems.append(_unreadable(error))
    except _BadLabel as bad:
        problems.append(Finding(*bad.args))
    return problems, pixels


def _unreadable(error: DataError) -> Finding:
    return Finding(str(error), corrupt=isinstance(error, CorruptImageError))


def read_bytes(path: str, backend_args: dict | None) -> bytes:
    """A file, wherever it lies; raises DataError, naming it, if it is gone."""
    with reading(path):
        return fileio.get(path, backend_args=backend_args)


def image_size(path: str, data: bytes) -> tuple[int, int]:
    """Decodes an image as mmseg does; (height, width). Raises CorruptImageError."""
    require_whole(data, path)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise CorruptImageError(f"{path}: corrupt or truncated: OpenCV cannot decode it")
    return image.shape[:2]


def decode_label(path: str, data: bytes) -> np.ndarray:
    """Decodes a label map (H, W); raises CorruptImageError."""
    with reading(path):
        return np.asarray(open_image(data, path))


def _check_size(pair: tuple[str, str], size: tuple[int, int], label: np.ndarray) -> None:
    image_path, label_path = pair
    if label.shape != size:
        raise _BadLabel(
            f"{label_path}: label is {label.shape[1]}x{label.shape[0]} (width x height), "
            f"its image {image_path} is {size[1]}x{size[0]}"
        )


def _check_values(
    path: str, values: np.ndarray, dataset: BaseSegDataset, allowed: np.ndarray
) -> None:
    in_byte = (values >= 0) & (values <= 255)  # mmseg would cut others to 8 bits
    fine = in_byte & allowed[np.where(in_byte, values, 0).astype(int)]
    if fine.all():
        return
    is_cityscapes = isinstance(dataset, CityscapesDataset)
    raise _BadLabel(
        f"{path}: label values {_ranges(values[~fine])} not allowed; "
        f"allowed are {_ranges(np.flatnonzero(allowed))} ({dataset.ignore_index} is ignored)",
        "convert with the cityscapesscripts label ids -> trainIds (`*_labelTrainIds.png`)"
        if is_cityscapes
        else "",
    )


def _count(label: np.ndarray) -> dict[int, int]:
    """Pixels of each value, ascending."""
    if label.dtype in (np.uint8, bool):  # eight times as fast as np.unique
        label = label.astype(np.uint8, copy=False)
        counts = cv2.calcHist([label], [0], None, [256], [0, 256]).ravel().astype(int)
        values = np.flatnonzero(counts)
        return dict(zip(values.tolist(), counts[values].tolist(), strict=True))
    values, counts = np.unique(label, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _ranges(values: np.ndarray, most: int = 10) -> str:
    """Writes 0, 1, 2, 255 as ``0-2, 255``."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    texts = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(texts[:most] + ["..."] * (len(texts) > most))
