"""Colours of classes from the files of a dataset that names none."""

from pathlib import Path

import numpy as np
from mmseg.datasets import BaseSegDataset
from PIL import Image, UnidentifiedImageError


def use_file_palette(dataset: BaseSegDataset, label_path: str) -> None:
    """Take the colours of a palette PNG in place of those that mmseg made up for a dataset."""
    meta = dataset._metainfo
    classes, palette = meta.get("classes") or (), np.array(meta.get("palette") or [])
    made_up = np.random.RandomState(42).randint(0, 255, (len(classes), 3))
    if dataset.label_map is not None or not np.array_equal(palette, made_up):
        return
    colours = file_palette(label_path)[int(dataset.reduce_zero_label) :][: len(classes)]
    if len(colours) == len(classes):
        meta["palette"] = colours


def file_palette(path: str) -> list[list[int]]:
    """Read the RGB colours of a local palette PNG, by label; none of other files."""
    if not Path(path).is_file():
        return []
    try:
        image = Image.open(path)
    except (UnidentifiedImageError, OSError):  # a check reports it
        return []
    palette = image.getpalette() if image.mode == "P" else None
    return np.reshape(palette or [], (-1, 3)).astype(int).tolist()
