"""The easiest and the hardest images of a sweep on one page."""

from collections.abc import Callable
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from ..evaluation.sweep import Sweep
from ..models.classifiers import ThinkingClassifier
from .visualizer import ThinkingVisualizer
from .window_map import stage_colour

_WIDTH = 1260  # pixels of the page
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_contact_sheet(
    sweep: Sweep, model: nn.Module, dataset: Dataset, path: str | Path, count: int = 6
) -> None:
    """Paints the images with the lowest and the highest entropy after the first stage.

    Args:
        sweep: Says which they are.
        model: The model that was swept; its gate decides how far it thinks here.
        dataset: What was swept, in the same order.
        path: Picture to write; its ending says the format.
        count: How many of each kind.
    """
    if isinstance(model, ThinkingClassifier):
        paint, columns = _labelled(model, dataset), 6
    else:
        paint, columns = _segmented(model, dataset), 3
    entropies = np.array([image.look.entropy[:, 0].mean() for image in sweep.images])
    order = entropies.argsort(kind="stable")
    count = max(1, min(count, len(order) // 2))
    page = [
        *_section("easiest for stage 0", order[:count], paint, columns),
        *_section("hardest for stage 0", order[-count:][::-1], paint, columns),
    ]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    mmcv.imwrite(mmcv.rgb2bgr(np.concatenate([_fill(part, _WIDTH) for part in page])), str(path))


def _section(title: str, indices: np.ndarray, paint: Callable, columns: int) -> list[np.ndarray]:
    """A headline and rows of tiles."""
    width = _WIDTH // columns
    tiles = [_shrink(paint(int(index)), width - 8) for index in indices]
    headline = np.full((36, _WIDTH, 3), 255, np.uint8)
    cv2.putText(headline, title, (6, 26), _FONT, 0.7, (0, 0, 0), 1, cv2.LINE_AA)
    rows = []
    for start in range(0, len(tiles), columns):
        row = tiles[start : start + columns]
        height = max(tile.shape[0] for tile in row) + 4
        rows.append(np.concatenate([_fill(tile, width, height) for tile in row], axis=1))
    return [headline, *rows]


def _segmented(model: nn.Module, dataset: Dataset) -> Callable[[int], np.ndarray]:
    """Image and prediction side by side."""
    visualizer = ThinkingVisualizer(alpha=0.6)
    visualizer.dataset_meta = dataset.metainfo

    def paint(index: int) -> np.ndarray:
        result = _predict(model, dataset[index])
        image = mmcv.imread(result.img_path, channel_order="rgb")
        return visualizer.paint(image, result, draw_gt=False)

    return paint


def _labelled(model: nn.Module, dataset: Dataset) -> Callable[[int], np.ndarray]:
    """The image with its label and what was predicted, framed in the colour of its stage."""
    names = dataset.metainfo["classes"] or [str(i) for i in range(model.backbone.num_classes)]

    def paint(index: int) -> np.ndarray:
        result = _predict(model, dataset[index])
        image = np.asarray(dataset.read(index)[0])
        side = _WIDTH // 6
        image = cv2.resize(image, (side, round(image.shape[0] * side / image.shape[1])))
        stage = int(result.exit_stage)
        corner = (image.shape[1] - 2, image.shape[0] - 2)
        cv2.rectangle(image, (1, 1), corner, stage_colour(stage), 3)
        entropy = float(result.gate_entropy[0])
        caption = _fill(np.full((40, 1, 3), 255, np.uint8), side)
        lines = (f"{names[result.gt_label]}: {names[result.pred_label]}", f"H {entropy:.3f}")
        for line, y in zip(lines, (16, 34), strict=True):
            cv2.putText(caption, line, (4, y), _FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        return np.concatenate((image, caption))

    return paint


@torch.no_grad()
def _predict(model: nn.Module, data: dict):
    batch = dict(inputs=[data["inputs"]], data_samples=[data["data_samples"]])
    return model.test_step(batch)[0].cpu()


def _shrink(picture: np.ndarray, width: int) -> np.ndarray:
    height = round(picture.shape[0] * width / picture.shape[1])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _fill(picture: np.ndarray, width: int, height: int | None = None) -> np.ndarray:
    """On white, at the top left."""
    page = np.full((height or picture.shape[0], width, 3), 255, np.uint8)
    page[: picture.shape[0], : picture.shape[1]] = picture
    return page
