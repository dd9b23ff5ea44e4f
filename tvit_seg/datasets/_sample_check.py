"""Check of one image and its label, decoded as mmseg decodes them."""

import io
import re
import struct

import cv2
import numpy as np
from mmengine import fileio
from mmseg.datasets import BaseSegDataset, CityscapesDataset
from PIL import Image

_END_MARKERS = (b"\xff\xd9", b"IEND\xaeB`\x82")  # of a whole JPEG, PNG
_PIL_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


class _BadSample(Exception):
    """One offending sample: a text naming the file, and a hint that may be empty."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text, self.hint = text, hint


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
) -> tuple[str, str] | None:
    """Decodes an image and its label.

    Args:
        pair: Paths of the image and of its label.
        dataset: The data set they belong to.
        allowed: Which of the values 0..255 the label may hold.

    Returns:
        What is wrong and a hint that may be empty; None where all is well.
    """
    problems, _ = inspect_sample(pair, dataset, allowed)
    return problems[0] if problems else None


def inspect_sample(
    pair: tuple[str, str], dataset: BaseSegDataset, allowed: np.ndarray
) -> tuple[list[tuple[str, str]], dict[int, int]]:
    """Decodes an image and its label, and goes on where something is wrong.

    Args:
        pair: As in :func:`check_sample`.
        dataset: As there.
        allowed: As there.

    Returns:
        All that is wrong, each with a hint that may be empty; and how many pixels of the label have
        each value that occurs.
    """
    image_path, label_path = pair
    problems, pixels, size = [], {}, None
    try:
        size = _image_size(image_path, _read(image_path, dataset))
    except _BadSample as bad:
        problems.append((bad.text, bad.hint))  # the exception would keep decoded arrays alive
    try:
        label = _decode_label(label_path, _read(label_path, dataset))
        if label.ndim != 2:
            raise _BadSample(
                f"{label_path}: label of shape {label.shape}, not single-channel",
                "a label holds one class index per pixel, as a grey or palette PNG; convert "
                "colour-coded ones",
            )
        pixels = _count(label)
        if size is not None:
            _check_size(pair, size, label)
        _check_values(label_path, np.array(list(pixels)), dataset, allowed)
    except _BadSample as bad:
        problems.append((bad.text, bad.hint))
    return problems, pixels


def _read(path: str, dataset: BaseSegDataset) -> bytes:
    data = fileio.get(path, backend_args=dataset.backend_args)
    if not data:
        raise _BadSample(f"{path}: corrupt: 0 bytes")
    return data


def _image_size(path: str, data: bytes) -> tuple[int, int]:
    # Some versions of OpenCV fill the rest of a truncated JPEG with grey and call it decoded;
    # PIL raises, but need not decode again what ends as a whole file does.
    if not data.endswith(_END_MARKERS):
        _open(path, data)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise _BadSample(f"{path}: corrupt or truncated: OpenCV cannot decode it")
    return image.shape[:2]


def _open(path: str, data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except _PIL_ERRORS as error:
        reason = re.sub(r" <.*>", "", str(error))  # PIL names the buffer it read from
        raise _BadSample(f"{path}: corrupt or truncated: {reason}") from error
    return image


def _decode_label(path: str, data: bytes) -> np.ndarray:
    return np.asarray(_open(path, data))


def _check_size(pair: tuple[str, str], size: tuple[int, int], label: np.ndarray) -> None:
    image_path, label_path = pair
    if label.shape != size:
        raise _BadSample(
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
    raise _BadSample(
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
