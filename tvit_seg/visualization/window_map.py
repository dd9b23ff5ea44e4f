"""Colours and text of all pictures, and a map of sliding windows with their exit stages."""

import cv2
import numpy as np
from mmseg.structures import SegDataSample
from torch import Tensor

# RGB, from cool (early exit) to warm (late exit)
_STAGE_COLOURS = ((60, 160, 220), (240, 130, 40), (220, 50, 60), (150, 40, 150))


def stage_colour(stage: int) -> tuple[int, int, int]:
    """Return the colour of a thinking stage in all pictures, RGB."""
    return _STAGE_COLOURS[stage % len(_STAGE_COLOURS)]


def compared_entropy(exit_stage: Tensor, entropies: Tensor) -> Tensor:
    """Pick the entropies (W,) that the gate compared last, of windows' (W, number of stages).

    Those of the exit stage; of the last stage, where nothing is compared, those of the one before.
    """
    last = max(0, entropies.shape[-1] - 2)
    return entropies.gather(-1, exit_stage.clamp(max=last)[..., None])[..., 0]


def write_text(picture: np.ndarray, text: str, at: tuple[int, int], scale: float = 0.45) -> None:
    """Write black text in place, from a point (x, y) at its lower left."""
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)


def draw_frame(picture: np.ndarray, colour: tuple[int, int, int], width: int = 2) -> np.ndarray:
    """Draw a frame on a copy of a picture."""
    corner = (picture.shape[1] - 2, picture.shape[0] - 2)
    return cv2.rectangle(picture.copy(), (1, 1), corner, colour, width)


def draw_window_map(image: np.ndarray, sample: SegDataSample) -> np.ndarray:
    """Draw each window as the cell around its centre, up to halfway to its neighbours.

    On a faded image (H, W, 3), each cell has the colour of its exit stage and shows the stage and
    the entropy that the gate compared last, in nats.
    """
    height, width = image.shape[:2]
    boxes = sample.windows.numpy() * np.array([height, width] * 2)
    rows, columns = (_cells(boxes[:, i], boxes[:, i + 2], (height, width)[i]) for i in (0, 1))
    picture = image // 2 + 100
    compared = compared_entropy(sample.exit_stage, sample.gate_entropy)
    for box, stage, entropy in zip(boxes, sample.exit_stage, compared, strict=True):
        (top, bottom), (left, right) = rows[box[0]], columns[box[1]]
        colour = stage_colour(int(stage))
        cell = picture[top:bottom, left:right]
        cell[:] = (0.55 * cell + 0.45 * np.array(colour)).astype(np.uint8)
        cv2.rectangle(picture, (left + 1, top + 1), (right - 2, bottom - 2), colour, 2)
        text = f"{int(stage)}: {entropy:.2f}"
        (length, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        write_text(picture, text, ((left + right - length) // 2, (top + bottom + tall) // 2))
    return picture


def _cells(starts: np.ndarray, ends: np.ndarray, length: int) -> dict[float, tuple[int, int]]:
    """For each start of a window, the start and end of its cell."""
    starts, first = np.unique(starts, return_index=True)
    centres = (starts + ends[first]) / 2
    borders = [0, *((centres[:-1] + centres[1:]) / 2).round().astype(int).tolist(), length]
    return {start: (borders[i], borders[i + 1]) for i, start in enumerate(starts)}
