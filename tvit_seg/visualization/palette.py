"""Colours of classes."""

from collections.abc import Sequence

import numpy as np

Colours = Sequence[Sequence[int]]
_GRID = np.stack(np.meshgrid(*[np.arange(0, 256, 17)] * 3), axis=-1).reshape(-1, 3)


def distinct_palette(palette: Colours) -> list[list[int]]:
    """Replace repeated colours (K, 3) RGB, of which the first class keeps its own.

    Each replacement is the colour with the largest distance from all others. The palettes of
    ADE20K, COCO-Stuff and Mapillary Vistas, among others, use some colours twice.
    """
    colours = np.array(palette, int).reshape(-1, 3)
    _, first = np.unique(colours, axis=0, return_index=True)
    repeated = np.setdiff1d(np.arange(len(colours)), first)
    gaps = np.full(len(_GRID), np.inf)  # of each candidate to the nearest colour, squared
    if len(repeated):
        for colour in colours[first]:
            gaps = np.minimum(gaps, ((_GRID - colour) ** 2).sum(1))
    for index in repeated:
        colours[index] = _GRID[gaps.argmax()]
        gaps = np.minimum(gaps, ((_GRID - colours[index]) ** 2).sum(1))
    return colours.tolist()
