"""Image files of strangers: bounded before they are decoded."""

import io
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from ..errors import CorruptImageError, DataError, UnknownFormatError

LIMIT = "TVIT_MAX_IMAGE_PIXELS"
"""Name of the environment variable with the most pixels that an image may have."""

_PIXELS = 89_478_485  # where PIL begins to warn of decompression bombs
_ASPECT = 1000  # of the sides: resizing the short one to 256 makes a bomb of a long, thin image
_END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


def max_image_pixels() -> int:
    """The most pixels that an image may have, from the environment.

    Raises:
        ValueError: ``TVIT_MAX_IMAGE_PIXELS`` is no positive integer.
    """
    text = os.environ.get(LIMIT, str(_PIXELS))
    if not text.isdecimal() or not int(text):
        raise ValueError(f"{LIMIT}={text!r} must be a positive number of pixels")
    return int(text)


def check_size(width: int, height: int, name: str) -> None:
    """Refuses images that would fill the memory.

    Args:
        width: In pixels.
        height: In pixels.
        name: Of the image, for the message.

    Raises:
        CorruptImageError: There are too many pixels, or the sides differ too much.
    """
    if width * height > max_image_pixels():
        raise CorruptImageError(
            f"{name}: {width} x {height} pixels (width x height) are more than "
            f"{max_image_pixels()}; {LIMIT}=NUMBER in the environment sets another limit"
        )
    if max(width, height) > _ASPECT * min(width, height):
        raise CorruptImageError(
            f"{name}: {width} x {height} pixels (width x height): one side is more than {_ASPECT} "
            "times the other"
        )


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Around reading and decoding an image: has every failure name the file.

    Args:
        name: Of the image.

    Raises:
        CorruptImageError: It was read, but cannot be decoded.
        DataError: It could not be read: it is gone, or the disk fails.
    """
    try:
        yield
    except DataError:
        raise
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:  # PIL's own have no number
            raise DataError(f"{name} cannot be read: {error.strerror}") from error
        if isinstance(error, UnidentifiedImageError):
            raise UnknownFormatError(f"{name}: corrupt or truncated: not an image") from error
        cause = re.sub(r" <.*>", "", str(error))  # PIL names the buffer it read from
        raise CorruptImageError(f"{name}: corrupt or truncated: {cause}") from error


def open_image(source: bytes | BinaryIO, name: str) -> Image.Image:
    """Reads the header of an image; its pixels are decoded when they are asked for.

    Args:
        source: The file, or what is in it.
        name: Of the image, for the message.

    Raises:
        CorruptImageError: It is no image, or one of too many pixels.
    """
    if source == b"":
        raise CorruptImageError(f"{name}: corrupt or truncated: 0 bytes")
    Image.MAX_IMAGE_PIXELS = max_image_pixels()  # PIL's own limit should be neither less nor more
    with reading(name):
        try:
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        except Image.DecompressionBombError as error:  # at twice the limit; it names that
            raise CorruptImageError(
                f"{name}: more than {max_image_pixels()} pixels; {LIMIT}=NUMBER in the environment "
                "sets another limit"
            ) from error
        check_size(*image.size, name)
        return image


def require_whole(source: bytes | BinaryIO, name: str, other_formats: bool = True) -> None:
    """Refuses what OpenCV should not see: too many pixels, or a truncated file.

    Some versions of OpenCV fill the rest of a truncated JPEG with grey and call it decoded. PIL
    raises, but need not decode again a JPEG or PNG that ends as a whole one does.

    Args:
        source: The file, or what is in it.
        name: Of the image, for the message.
        other_formats: Whether to decode formats whose end tells nothing.

    Raises:
        CorruptImageError: As said.
    """
    image = open_image(source, name)
    marker = _END_MARKERS.get(image.format)
    with reading(name):
        if not (_ends_with(source, marker) if marker else not other_formats):
            image.load()


def _ends_with(source: bytes | BinaryIO, marker: bytes) -> bool:
    if isinstance(source, bytes):
        return source.endswith(marker)
    place = source.tell()
    source.seek(-len(marker), os.SEEK_END)
    found = source.read()
    source.seek(place)  # PIL goes on from there
    return found == marker
