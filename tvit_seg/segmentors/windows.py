"""Where sliding windows lie, as plain functions."""

from collections.abc import Sequence

import torch
from torch import Tensor


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """First pixels of the windows along one axis; the last window ends at the border.

    Args:
        length: Size of the image in pixels.
        crop: Size of a window in pixels.
        stride: Step between windows in pixels, at most ``crop``.

    Returns:
        Starts, increasing; a single 0 where the image is no larger than a window.
    """
    if length <= crop:
        return [0]
    return [*range(0, length - crop, stride), length - crop]


def window_boxes(size: Sequence[int], crop: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Windows over an image, all of one size, row by row.

    Args:
        size: (H, W) of the image in pixels.
        crop: (h, w) of a window; cut to the image where that is smaller.
        stride: Steps down and right in pixels.

    Returns:
        (number of windows, 4) top, left, bottom, right in pixels.
    """
    height, width = (min(c, s) for c, s in zip(crop, size, strict=True))
    tops = window_starts(size[0], height, stride[0])
    lefts = window_starts(size[1], width, stride[1])
    return torch.tensor([[y, x, y + height, x + width] for y in tops for x in lefts])


def check_slide(crop: Sequence[int] | None, stride: Sequence[int] | None, batch: int) -> None:
    """Raises ValueError if the sliding windows cannot cover an image."""
    for name, value in (("crop_size", crop), ("stride", stride)):
        if value is None or len(value) != 2 or min(value) < 1:
            raise ValueError(
                f"test_cfg {name}={value} must be two lengths in pixels when mode='slide'"
            )
    if any(s > c for s, c in zip(stride, crop, strict=True)):
        raise ValueError(
            f"test_cfg stride={tuple(stride)} is larger than crop_size={tuple(crop)}: "
            "pixels between the windows would be missed"
        )
    if not isinstance(batch, int) or batch < 1:
        raise ValueError(f"window_batch_size={batch!r} must be an integer >= 1")
