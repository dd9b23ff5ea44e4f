"""Logits of an image, upsampled and averaged over its windows for some classes at a time."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .class_map import candidates

if TYPE_CHECKING:
    from .windows import Windows


class ImageLogits:
    """Logits (K, H, W) of an image that are computed where an index selects classes.

    Args:
        coarse: (W, K, h, w) of each window, at the decode head's own resolution.
        upsample: These to the padded size of a window.
        windows: Over the image.
    """

    def __init__(self, coarse: Tensor, upsample: Callable[[Tensor], Tensor], windows: "Windows"):
        self.coarse, self.upsample, self.windows = coarse, upsample, windows
        self.shape = torch.Size((coarse.shape[1], *windows.size))

    def __len__(self) -> int:
        return len(self.coarse[0])

    def __getitem__(self, classes: slice) -> Tensor:
        """Logits (k, H, W) of some classes; windows are upsampled one by one."""
        if len(self.windows) == 1:
            return self._window(0, classes)
        canvas = self.coarse.new_zeros(len(range(len(self))[classes]), *self.windows.size)
        for i, area in enumerate(self.windows.areas):
            canvas[area] += self._window(i, classes)
        return canvas.div_(self.windows.cover(canvas))

    def candidates(self) -> Sequence[int]:
        """Classes that can be the best one of some pixel at any final size, ascending."""
        if len(self.windows) > 1:
            return range(len(self))
        return candidates(self.coarse[0], self.windows.size, resized=2)

    def _window(self, index: int, classes: slice) -> Tensor:
        height, width = self.windows.shape
        upsampled = self.upsample(self.coarse[index : index + 1, classes])
        return upsampled[0, :, :height, :width]
