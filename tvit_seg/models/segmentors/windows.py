"""Sliding windows; a whole image is a single window."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...utils.checks import check, check_choice, check_integer, check_keys
from .postprocess import padding

Area = tuple[object, slice, slice]


class Windows:
    """Windows of one size over images of one size, row by row.

    Args:
        size: (H, W) of the images in pixels.
        crop: (h, w) of a window in pixels; cut to the image where that is smaller. None: one window
            as large as the image.
        stride: Steps down and right in pixels.

    Attributes:
        boxes: (W, 4) top, left, bottom, right in pixels.
        shape: (h, w) of a window in pixels.
    """

    def __init__(
        self,
        size: Sequence[int],
        crop: Sequence[int] | None = None,
        stride: Sequence[int] | None = None,
    ):
        self.size = tuple(size)
        height, width = self.shape = tuple(
            self.size if crop is None else (min(c, s) for c, s in zip(crop, size, strict=True))
        )
        tops = [0] if crop is None else window_starts(size[0], height, stride[0])
        lefts = [0] if crop is None else window_starts(size[1], width, stride[1])
        self.areas: list[Area] = [
            (..., slice(y, y + height), slice(x, x + width)) for y in tops for x in lefts
        ]
        self.boxes = torch.tensor([[y, x, y + height, x + width] for y in tops for x in lefts])

    def __len__(self) -> int:
        return len(self.areas)

    def shares(self, meta: Mapping) -> Tensor:
        """Boxes (W, 4) of windows as shares of height and width of the unpadded image."""
        left, right, top, bottom = padding(meta)
        height, width = self.size
        origin = torch.tensor([top, left] * 2)
        extent = torch.tensor([height - top - bottom, width - left - right] * 2)
        return ((self.boxes - origin) / extent).clamp(0, 1)

    def crops(self, images: Tensor, batch_size: int) -> Iterator[Tensor]:
        """Cut images into batches of windows.

        Args:
            images: (B, 3, H, W).
            batch_size: Number of windows at once; whole images always run together.

        Yields:
            Windows (n, 3, h, w), all of the first image, then of the next.
        """
        slots = [(i, w) for i in range(len(images)) for w in range(len(self))]
        if len(self) == 1:
            yield images
            return
        for start in range(0, len(slots), batch_size):
            chunk = slots[start : start + batch_size]
            yield torch.stack([images[i][self.areas[w]] for i, w in chunk])

    def cover(self, like: Tensor) -> Tensor:
        """Number (H, W) of windows that cover each pixel, of the type of a tensor."""
        cover = like.new_zeros(self.size)
        for area in self.areas:
            cover[area] += 1
        return cover


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


def check_test_cfg(cfg: Mapping[str, Any]) -> None:
    """Check the options of prediction; windows must cover the image."""
    keys = ("mode", "crop_size", "stride", "window_batch_size", "seg_logits")
    check_keys("test_cfg", cfg, keys)
    check_integer("test_cfg window_batch_size", cfg.get("window_batch_size", 1))
    if check_choice("test_cfg mode", cfg.get("mode", "whole"), ("whole", "slide")) == "whole":
        return
    crop, stride = cfg.get("crop_size"), cfg.get("stride")
    check_pair("test_cfg crop_size", crop)
    check_pair("test_cfg stride", stride)
    covers = all(s <= c for s, c in zip(stride, crop, strict=True))
    check(
        covers, "test_cfg stride", stride, f"at most crop_size={crop}, so that no pixel is missed"
    )


def check_pair(name: str, value: Sequence[int] | None) -> None:
    """Raise ConfigError unless an argument is a height and width in pixels."""
    fits = isinstance(value, Sequence) and len(value) == 2
    check(fits, name, value, "two lengths in pixels")
    for length in value:
        check_integer(name, length)
