"""Label pictures that hold a colour for each class, converted to label maps."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..utils.checks import check
from .images import find_pictures, reading

Colour = tuple[int, int, int]


def convert_colours(
    source: Path, target: Path, colours: Sequence[Colour], ignore_index: int = 255
) -> Counter[Colour]:
    """Write a label map, a palette PNG of class indices, for each picture of a folder.

    Args:
        source: Folder of pictures, with subfolders.
        target: Folder for the label maps, which keep their names.
        colours: RGB of each class, in order, in [0, 255].
        ignore_index: Label of pixels with any other colour.

    Returns:
        Pixels of each other colour.

    Raises:
        ConfigError: A colour is no RGB triple, or repeats; ``target`` is ``source``.
        DataError: There are no pictures, or one cannot be decoded.
    """
    fits = all(len(c) == 3 and 0 <= min(c) <= max(c) <= 255 for c in colours)
    fits &= 1 <= len(colours) == len(set(colours)) <= 256
    check(fits, "colours", colours, "different triples in [0, 255], at most 256")
    check(target.resolve() != source.resolve(), "target", str(target), "another folder")
    classes = np.full(2**24, ignore_index, np.uint8)
    classes[_codes(np.array(colours))] = np.arange(len(colours))
    palette = np.zeros((256, 3), np.uint8)  # all of it, else PIL saves fewer bits per pixel
    palette[: len(colours)] = colours
    others: Counter[Colour] = Counter()
    for path in tqdm(find_pictures(source), "converting", delay=2):
        with reading(str(path)):
            codes = _codes(np.asarray(Image.open(path).convert("RGB")))
        labels = classes[codes]
        unknown = codes[labels == ignore_index]
        for code, count in zip(*np.unique(unknown, return_counts=True), strict=True):
            red, green, blue = int(code).to_bytes(3, "big")
            others[red, green, blue] += int(count)
        drawn = Image.fromarray(labels)
        drawn.putpalette(palette.tobytes())
        place = (target / path.relative_to(source)).with_suffix(".png")
        place.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(place)
    return others


def _codes(colours: np.ndarray) -> np.ndarray:
    """Colours (..., 3) as one number each."""
    return colours.astype(np.int64) @ (65536, 256, 1)
