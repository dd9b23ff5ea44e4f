"""Image files; every failure to read or decode one names the file."""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from mmengine import fileio
from mmengine.utils import scandir
from PIL import Image, UnidentifiedImageError

from ..errors import CorruptImageError, DataError, UnknownFormatError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

_END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_DECODING = SyntaxError, ValueError, EOFError, struct.error, cv2.error, Image.DecompressionBombError


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn errors of PIL, OpenCV and the file system into errors that name the image.

    Raises:
        CorruptImageError: It was read but cannot be decoded.
        DataError: It cannot be read: it is missing, or the disk fails.
    """
    try:
        yield
    except DataError:
        raise
    except (OSError, *_DECODING) as error:
        if isinstance(error, OSError) and error.errno is not None:  # PIL's own have no number
            raise DataError(f"{name} cannot be read: {error.strerror}") from error
        if isinstance(error, UnidentifiedImageError):
            raise UnknownFormatError(f"{name}: corrupt or truncated: not an image") from error
        cause = re.sub(r" <.*>", "", str(error))  # PIL names the buffer it read from
        raise CorruptImageError(f"{name}: corrupt or truncated: {cause}") from error


def require_whole(data: bytes, decode_others: bool = True) -> None:
    """Reject a truncated file with PIL's error.

    Some versions of OpenCV fill the rest of a truncated JPEG with grey; PIL raises. A JPEG or PNG
    with a complete end is not decoded again.

    Args:
        data: Content of the file.
        decode_others: Whether to decode formats without an end marker.
    """
    image = Image.open(io.BytesIO(data))
    marker = _END_MARKERS.get(image.format)
    if not data.endswith(marker) if marker else decode_others:
        image.load()


def read_image(path: str | Path, backend_args: dict | None = None) -> np.ndarray:
    """Decode an image as mmseg does, to (H, W, 3) BGR.

    Raises:
        CorruptImageError: It cannot be decoded.
        DataError: It cannot be read.
    """
    with reading(str(path)):
        data = fileio.get(path, backend_args=backend_args)
        require_whole(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise CorruptImageError(f"{path}: corrupt or truncated: OpenCV cannot decode it")
    return image


def read_label(path: str | Path, backend_args: dict | None = None) -> np.ndarray:
    """Decode a label map (H, W) as mmseg does, but without its truncation to 8 bits.

    Raises:
        CorruptImageError: It cannot be decoded.
        DataError: It cannot be read.
    """
    with reading(str(path)):
        data = fileio.get(path, backend_args=backend_args)
        return np.asarray(Image.open(io.BytesIO(data)))


def require_bytes(data: bytes, path: str) -> None:
    """Reject a label map with values above 255, which mmseg would read modulo 256."""
    image = Image.open(io.BytesIO(data))
    if image.mode[0] in "IF" and (largest := np.asarray(image).max()) > 255:  # of 16 or 32 bits
        raise DataError(f"{path}: label value {largest} not allowed: labels have 8 bits")


def to_picture(image: np.ndarray) -> np.ndarray:
    """Show an image of any type and number of bands as (H, W, 3) uint8, BGR if it has colours.

    Of many bands the first three are shown, of two the first. Values other than 8 bits are
    stretched from their 1st to their 99th percentile.
    """
    bands = image[..., None] if image.ndim == 2 else image
    bands = bands[..., :3] if bands.shape[2] >= 3 else bands[..., :1].repeat(3, axis=2)
    if bands.dtype == np.uint8:
        return np.ascontiguousarray(bands)
    low, high = np.nanpercentile(bands, (1, 99))
    scaled = (bands.astype(np.float64) - low) * (255 / max(high - low, 1e-9))
    return np.nan_to_num(scaled).clip(0, 255).astype(np.uint8)


def find_pictures(folder: Path, endings: tuple[str, ...] = PICTURES) -> list[Path]:
    """List all pictures in a folder and its subfolders, sorted.

    Raises:
        DataError: There is no such folder, or no picture.
    """
    if not folder.is_dir():
        raise DataError(f"folder {folder} does not exist")
    names = scandir(folder, endings, recursive=True, case_sensitive=False)
    found = sorted(folder / name for name in names)
    if not found:
        raise DataError(f"{folder} holds no picture ({', '.join(endings)})")
    return found
