"""Sliding windows: where they lie and how they add up. A whole image is a single window."""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from ...utils.argument_types import check_options

Area = tuple[object, slice, slice]


class Windows:
    """Windows over images of one size, all windows of one size too, row by row.

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
        """Where windows lie in an image, without the padding that it got for testing.

        Args:
            meta: The image's metainfo.

        Returns:
            (W, 4) top, left, bottom, right as shares of height and width.
        """
        left, right, top, bottom = meta.get("img_padding_size", meta.get("padding_size", [0] * 4))
        height, width = self.size
        origin = torch.tensor([top, left] * 2)
        extent = torch.tensor([height - top - bottom, width - left - right] * 2)
        return ((self.boxes - origin) / extent).clamp(0, 1)

    def crops(self, images: Tensor, batch_size: int) -> Iterator[tuple[list, Tensor]]:
        """Cuts images into batches of windows.

        Args:
            images: (B, 3, H, W).
            batch_size: How many windows at once; whole images always run together.

        Yields:
            Which windows these are, as pairs of image and window number, and (n, 3, h, w).
        """
        slots = [(i, w) for i in range(len(images)) for w in range(len(self))]
        if len(self) == 1:
            yield slots, images
            return
        for start in range(0, len(slots), batch_size):
            chunk = slots[start : start + batch_size]
            yield chunk, torch.stack([images[i][self.areas[w]] for i, w in chunk])

    def add(self, canvas: Tensor | None, slots: list, logits: Tensor, count: int) -> Tensor:
        """Adds the logits of windows in place.

        Args:
            canvas: (count, K, H, W), or None for the first windows.
            slots: Pairs of image and window number.
            logits: (n, K, h, w).
            count: Number of images.

        Returns:
            The canvas.
        """
        if len(self) == 1:
            return logits
        if canvas is None:
            canvas = logits.new_zeros(count, logits.shape[1], *self.size)
        for (i, w), window in zip(slots, logits, strict=True):
            canvas[i][self.areas[w]] += window
        return canvas

    def average(self, canvas: Tensor) -> Tensor:
        """Divides, in place, by how many windows cover each pixel.

        Args:
            canvas: (B, K, H, W) sums.

        Returns:
            (B, K, H, W).
        """
        return canvas if len(self) == 1 else canvas.div_(self.cover(canvas))

    def cover(self, like: Tensor) -> Tensor:
        """(H, W) how many windows cover each pixel, of the type of a tensor."""
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
    """Raises ValueError if a segmentor cannot predict so, e.g. if windows do not cover an image."""
    pair = Sequence[int] | None
    check_options("test_cfg", cfg, mode=str, crop_size=pair, stride=pair, window_batch_size=int)
    mode = cfg.get("mode", "whole")
    if mode not in ("whole", "slide"):
        raise ValueError(f"test_cfg mode={mode!r} must be 'whole' or 'slide'")
    batch = cfg.get("window_batch_size", 1)
    if batch < 1:
        raise ValueError(f"window_batch_size={batch!r} must be an integer >= 1")
    if mode == "whole":
        return
    crop, stride = cfg.get("crop_size"), cfg.get("stride")
    for name, value in (("crop_size", crop), ("stride", stride)):
        check_pair(f"test_cfg {name}", value, " when mode='slide'")
    if any(s > c for s, c in zip(stride, crop, strict=True)):
        raise ValueError(
            f"test_cfg stride={tuple(stride)} is larger than crop_size={tuple(crop)}: "
            "pixels between the windows would be missed"
        )


def check_pair(name: str, value: Sequence[int] | None, when: str = "") -> None:
    """Raises ValueError if something is no height and width in pixels."""
    lengths = list(value) if isinstance(value, Sequence) else []
    if len(lengths) != 2 or not all(isinstance(x, Integral) and x >= 1 for x in lengths):
        raise ValueError(f"{name}={value!r} must be two lengths in pixels{when}")
