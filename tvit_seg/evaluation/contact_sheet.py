"""The easiest and the hardest images of a sweep on one page."""

from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from .sweep import Sweep
from .visualizer import ThinkingVisualizer

_TILE = 420  # pixels


def draw_contact_sheet(
    sweep: Sweep,
    model: nn.Module,
    dataset: Dataset,
    visualizer: ThinkingVisualizer,
    path: str | Path,
    count: int = 6,
) -> None:
    """Paints the images with the lowest and the highest entropy after the first stage.

    Args:
        sweep: Says which they are.
        model: The segmentor that was swept; its gate decides how far it thinks here.
        dataset: What was swept, in the same order.
        visualizer: Paints one result.
        path: Picture to write; its ending says the format.
        count: How many of each kind.
    """
    entropies = np.array([image.look.entropy[:, 0].mean() for image in sweep.images])
    order = entropies.argsort(kind="stable")
    count = max(1, min(count, len(order) // 2))
    parts = [
        *_section("easiest for stage 0", order[:count], model, dataset, visualizer),
        *_section("hardest for stage 0", order[-count:][::-1], model, dataset, visualizer),
    ]
    width = max(part.shape[1] for part in parts)
    page = np.concatenate([_fill(part, width) for part in parts])
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    mmcv.imwrite(mmcv.rgb2bgr(page), str(path))


def _section(title: str, indices: np.ndarray, model, dataset, visualizer) -> list[np.ndarray]:
    """A headline and rows of three tiles."""
    tiles = [_tile(int(index), model, dataset, visualizer) for index in indices]
    headline = np.full((36, _TILE, 3), 255, np.uint8)
    font, black = cv2.FONT_HERSHEY_SIMPLEX, (0, 0, 0)
    cv2.putText(headline, title, (6, 26), font, 0.7, black, 1, cv2.LINE_AA)
    rows = []
    for start in range(0, len(tiles), 3):
        row = tiles[start : start + 3]
        height = max(tile.shape[0] for tile in row)
        rows.append(np.concatenate([_fill(tile, _TILE, height) for tile in row], axis=1))
    return [headline, *rows]


@torch.no_grad()
def _tile(
    index: int, model: nn.Module, dataset: Dataset, visualizer: ThinkingVisualizer
) -> np.ndarray:
    data = dataset[index]
    batch = dict(inputs=[data["inputs"]], data_samples=[data["data_samples"]])
    result = model.test_step(batch)[0].cpu()
    image = mmcv.imread(result.img_path, channel_order="rgb")
    painted = visualizer.paint(image, result, draw_gt=False)
    height = round(painted.shape[0] * (_TILE - 8) / painted.shape[1])
    return cv2.resize(painted, (_TILE - 8, height), interpolation=cv2.INTER_AREA)


def _fill(picture: np.ndarray, width: int, height: int | None = None) -> np.ndarray:
    """On white, at the top left."""
    page = np.full((height or picture.shape[0], width, 3), 255, np.uint8)
    page[: picture.shape[0], : picture.shape[1]] = picture
    return page
