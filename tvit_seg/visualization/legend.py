"""A legend of classes, and outlines of errors."""

from collections.abc import Sequence

import cv2
import numpy as np

from .window_map import write_text

_ROW, _BOX, _MOST_ROWS, _SCALE = 22, 14, 3, 0.45  # pixels, pixels, rows, size of the font


def draw_legend(
    labels: Sequence[np.ndarray], classes: Sequence[str], palette: Sequence, width: int
) -> np.ndarray:
    """Draw a strip of the classes that occur in label maps, with their colours.

    Its height depends on width and number of classes alone, so that frames of a video have one
    size. Where it is too small, the largest classes are shown and the others counted.

    Args:
        labels: Label maps (H, W).
        classes: Names by label.
        palette: RGB by label.
        width: Of the strip in pixels.
    """
    pixels = sum(np.bincount(x[x < len(classes)].ravel(), minlength=len(classes)) for x in labels)
    lengths = [cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, _SCALE, 1)[0][0] for name in classes]
    cell = min(width, max(lengths) + _BOX + 20)
    columns = width // cell
    rows = min(_MOST_ROWS, -(-len(classes) // columns))
    found = np.flatnonzero(pixels)
    room = rows * columns
    if len(found) > room:
        found = np.sort(found[np.argsort(-pixels[found], kind="stable")][: room - 1])
    strip = np.full((rows * _ROW, width, 3), 255, np.uint8)
    for index, label in enumerate(found):
        left, top = index % columns * cell + 6, index // columns * _ROW + 4
        box = strip[top : top + _BOX, left : left + _BOX]
        box[:] = palette[label]
        cv2.rectangle(strip, (left, top), (left + _BOX - 1, top + _BOX - 1), (0, 0, 0), 1)
        write_text(strip, classes[label], (left + _BOX + 5, top + 12), _SCALE)
    if more := int((pixels > 0).sum()) - len(found):
        left, top = (room - 1) % columns * cell + 6, (room - 1) // columns * _ROW + 4
        write_text(strip, f"and {more} more", (left, top + 12), _SCALE)
    return strip


def outline(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Outline the regions of a mask (h, w) on a copy of a picture of any size."""
    mask = cv2.resize(mask.astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    picture = picture.copy()
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # visible on any colour
        cv2.drawContours(picture, contours, -1, colour, thickness)
    return picture
