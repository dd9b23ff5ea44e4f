"""Check of one image and its label, decoded as mmseg decodes them."""

from typing import NamedTuple

import cv2
import numpy as np
from mmengine import fileio
from mmseg.datasets import BaseSegDataset, CityscapesDataset

from tvit_seg.datasets.error import CorruptImageError
from tvit_seg.datasets.images import open_image, reading, require_whole


class Finding(NamedTuple):
    """What is wrong with a sample."""

    text: str
    hint: str = ""
    corrupt: bool = False
    """Whether a file cannot be decoded, so that ``skip_corrupt`` passes it over."""


class _BadLabel(Exception):
    """One offending label: a text naming the file, and a hint that may be empty."""


def allowed_values(dataset: BaseSegDataset, num_classes: int) -> np.ndarray:
    """Says which values a label file may hold.

    Args:
        dataset: Gives ``reduce_zero_label``, ``label_map`` and ``ignore_index``.
        num_classes: Number of classes after these.

    Returns:
        256 booleans.
    """
    seen = np.arange(256)
    if dataset.reduce_zero_label:
        seen = np.where(seen == 0, 255, seen - 1)
        seen[seen == 254] = 255
    mapped = seen.copy()
    for old, new in (dataset.label_map or {}).items():
        mapped[seen == old] = new
    return (mapped < num_classes) | (mapped == dataset.ignore_index)


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
    image_path, label_path = pair
    try:
        size = image_size(image_path, read_bytes(image_path, dataset.backend_args))
        label = decode_label(label_path, read_bytes(label_path, dataset.backend_args))
        _check_shape(pair, size, label)
        _check_values(label_path, label, dataset, allowed)
    # the exception itself would keep the decoded arrays alive
    except CorruptImageError as error:
        return Finding(str(error), corrupt=True)
    except _BadLabel as bad:
        return Finding(*bad.args)
    return None


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


def _check_shape(pair: tuple[str, str], size: tuple[int, int], label: np.ndarray) -> None:
    image_path, label_path = pair
    if label.ndim != 2:
        raise _BadLabel(
            f"{label_path}: label of shape {label.shape}, not single-channel",
            "a label holds one class index per pixel, as a grey or palette PNG; convert "
            "colour-coded ones",
        )
    if label.shape != size:
        raise _BadLabel(
            f"{label_path}: label is {label.shape[1]}x{label.shape[0]} (width x height), "
            f"its image {image_path} is {size[1]}x{size[0]}"
        )


def _check_values(
    path: str, label: np.ndarray, dataset: BaseSegDataset, allowed: np.ndarray
) -> None:
    values = _values(label)
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


def _values(label: np.ndarray) -> np.ndarray:
    if label.dtype == np.uint8:  # eight times as fast as np.unique
        counts = cv2.calcHist([label], [0], None, [256], [0, 256])
        return np.flatnonzero(counts)
    return np.unique(label)


def _ranges(values: np.ndarray, most: int = 10) -> str:
    """Writes 0, 1, 2, 255 as ``0-2, 255``."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    texts = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(texts[:most] + ["..."] * (len(texts) > most))
