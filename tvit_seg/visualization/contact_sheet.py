"""The easiest and the hardest images of a sweep on one page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import nn

from ..datasets.corrupt import reader_of
from ..datasets.images import to_picture
from ..evaluation.sweep import Sweep
from ..models.classifiers import ThinkingClassifier
from .visualizer import ThinkingVisualizer
from .window_map import compared_entropy, draw_frame, stage_colour, write_text

_WIDTH = 1260  # pixels of the page


def draw_contact_sheet(
    sweep: Sweep, model: nn.Module, dataset: Any, path: str | Path, count: int = 6
) -> None:
    """Draw the images with the lowest and the highest entropy after stage 0.

    Args:
        sweep: Entropies of the images.
        model: The model of the sweep; its gate decides on the exits shown.
        dataset: The images of the sweep, in the same order.
        path: Picture to write.
        count: Number of images of each kind.
    """
    if isinstance(model, ThinkingClassifier):
        paint, columns = _labelled(dataset), 6
    else:
        paint, columns = _segmented(dataset), 3

    @torch.no_grad()
    def tile(index: int) -> np.ndarray:
        result = model.test_step(pseudo_collate([dataset[index]]))[0].cpu()
        picture, width = paint(index, result), _WIDTH // columns - 8
        size = (width, round(picture.shape[0] * width / picture.shape[1]))
        return mmcv.imresize(picture, size, interpolation="area")

    entropies = np.array([image.predictions.entropy[:, 0].mean() for image in sweep.images])
    order = entropies.argsort(kind="stable").tolist()
    count = max(1, min(count, len(order) // 2))
    page = _section("easiest for stage 0", list(map(tile, order[:count])), columns)
    page += _section("hardest for stage 0", list(map(tile, order[-count:][::-1])), columns)
    mmcv.imwrite(mmcv.rgb2bgr(np.concatenate(page)), str(path))


def _section(title: str, tiles: list[np.ndarray], columns: int) -> list[np.ndarray]:
    """A headline and rows of tiles."""
    headline = np.full((36, _WIDTH, 3), 255, np.uint8)
    write_text(headline, title, (6, 26), 0.7)
    parts = [headline]
    for start in range(0, len(tiles), columns):
        row = tiles[start : start + columns]
        height = max(tile.shape[0] for tile in row) + 4
        row = np.concatenate([_fill(tile, _WIDTH // columns, height) for tile in row], axis=1)
        parts.append(_fill(row, _WIDTH, height))
    return parts


def _segmented(dataset: Any) -> Callable[[int, object], np.ndarray]:
    """Image and prediction side by side."""
    visualizer = ThinkingVisualizer()
    visualizer.dataset_meta = dataset.metainfo
    reader = reader_of(dataset)

    def paint(index: int, result) -> np.ndarray:
        image = mmcv.bgr2rgb(to_picture(reader.image(result.metainfo)))
        return visualizer.paint(image, result, draw_gt=False)

    return paint


def _labelled(dataset: Any) -> Callable[[int, object], np.ndarray]:
    """The image with its label and the prediction, framed in the colour of its stage."""

    def paint(index: int, result) -> np.ndarray:
        image, side = np.asarray(dataset.read(index)[0]), _WIDTH // 6
        image = cv2.resize(image, (side, round(image.shape[0] * side / image.shape[1])))
        image = draw_frame(image, stage_colour(int(result.exit_stage)), 3)
        caption = np.full((40, side, 3), 255, np.uint8)
        classes = dataset.metainfo["classes"]
        labels = int(result.gt_label), int(result.pred_label)
        names = [classes[label] if classes else str(label) for label in labels]
        write_text(caption, ": ".join(names), (4, 16))
        entropy = float(compared_entropy(result.exit_stage, result.gate_entropy))
        write_text(caption, f"H {entropy:.3f}", (4, 34))
        return np.concatenate((image, caption))

    return paint


def _fill(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """The picture in the top left corner of a white page."""
    return mmcv.impad(picture, shape=(height, width), pad_val=(255, 255, 255))
