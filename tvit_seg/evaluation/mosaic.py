"""The prediction for one image when its windows stop after these stages, or those."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..models.segmentors import ThinkingEncoderDecoder
from ..models.segmentors.postprocess import class_map, has_original_size, to_original_size
from ..models.segmentors.windows import Windows


class Mosaic:
    """Puts windows together, each from a stage of choice, bit-equal to the segmentor's own result.

    From one choice to the next only the windows that change are added up anew.

    Args:
        model: The segmentor.
        logits: For each stage, (K, h, w) for each of the W windows.
        windows: Where they lie.
        metainfo: Of the data sample.
    """

    def __init__(
        self,
        model: ThinkingEncoderDecoder,
        logits: list[list[Tensor]],
        windows: Windows,
        metainfo: Mapping,
    ):
        self.model = model
        self.logits = logits
        self.windows = windows
        self.metainfo = metainfo
        self._exits: list[int] = []
        self._stays = has_original_size(windows.size, metainfo)
        if len(windows) > 1:
            first = logits[0][0]
            self._cover = windows.cover(first)
            self._canvas = first.new_empty(len(first), *windows.size)
            labels = first.dtype if len(first) == 1 else torch.long
            self._labels = first.new_empty(windows.size, dtype=labels)

    def predict(self, exits: Sequence[int]) -> Tensor:
        """The label map.

        Args:
            exits: Stage of each window.

        Returns:
            (H, W) at the size of the original image; the next call may change it in place.
        """
        if len(self.windows) == 1:
            return self._classes(self._restore(self.logits[exits[0]][0]))
        before, self._exits = self._exits, list(exits)
        if before:
            areas = zip(self.windows.areas, before, exits, strict=True)
            changed = [area[-2:] for area, old, new in areas if old != new]
        else:
            changed = [tuple(slice(0, length) for length in self.windows.size)]
        for area in changed:
            self._renew(area)
        if not self._stays:
            self._labels = self._classes(self._restore(self._canvas))
        return self._labels

    def _renew(self, area: tuple[slice, slice]) -> None:
        """Adds up what the windows say about an area, in their order, as the segmentor does."""
        part = (..., *area)
        canvas = self._canvas[part].zero_()
        for index, (_, *other) in enumerate(self.windows.areas):
            common = [_overlap(a, b) for a, b in zip(area, other, strict=True)]
            if None in common:
                continue
            here, there = (
                tuple(slice(c.start - s.start, c.stop - s.start) for c, s in pairs)
                for pairs in (zip(common, area, strict=True), zip(common, other, strict=True))
            )
            canvas[(..., *here)] += self.logits[self._exits[index]][index][(..., *there)]
        canvas.div_(self._cover[part])
        if self._stays:  # only here do classes change
            self._labels[part] = self._classes(canvas)

    def _restore(self, canvas: Tensor) -> Tensor:
        return to_original_size(canvas, self.metainfo, self.model.align_corners)

    def _classes(self, logits: Tensor) -> Tensor:
        scores = logits.sigmoid() if len(logits) == 1 else logits
        return class_map(scores, self.model.decode_head.threshold).squeeze(0)


def _overlap(one: slice, other: slice) -> slice | None:
    start, stop = max(one.start, other.start), min(one.stop, other.stop)
    return slice(start, stop) if start < stop else None
