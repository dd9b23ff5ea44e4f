"""Real images to check graphs with: a folder's, or those of a config's validation set."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from ..datasets.images import find_pictures, read_image
from ..errors import ExportError
from ..utils.text import first_line


def load_pictures(cfg: Config, folder: Path | None, count: int) -> list[np.ndarray]:
    """Reads some images.

    Args:
        cfg: Its validation set is read where no folder is given.
        folder: Pictures.
        count: How many at most.

    Returns:
        (H, W, 3) uint8 BGR each.

    Raises:
        ExportError: If there is none.
    """
    if folder is not None:
        return [read_image(path) for path in find_pictures(folder)[:count]]
    return [picture for picture, _ in validation_set(cfg, count)]


def validation_set(cfg: Config, count: int | None = None) -> Iterator[tuple[np.ndarray, dict]]:
    """Images of a config's validation set, as they lie on the disk and as its pipeline gives them.

    Args:
        cfg: A config.
        count: How many; None for all.

    Yields:
        (H, W, 3) uint8 BGR, and the dataset's item: ``inputs``, ``data_samples`` with the label.

    Raises:
        ExportError: If there is none.
    """
    init_default_scope(cfg.get("default_scope", "mmseg"))
    try:
        if not cfg.get("val_dataloader"):
            raise ValueError("there is no val_dataloader")
        dataset = DATASETS.build(cfg.val_dataloader.dataset)
        total = len(dataset)
    except (FileNotFoundError, ValueError) as error:
        raise ExportError(
            f"the config's validation set cannot be read ({first_line(error)}); graphs "
            "are checked on real images: name some with --images FOLDER"
        ) from error
    for index in range(total if count is None else min(count, total)):
        item = dataset[index]
        sample = item["data_samples"]
        if "img_path" in sample:
            yield read_image(sample.img_path), item
        else:  # timm's datasets come as RGB, resized and cropped
            yield item["inputs"].permute(1, 2, 0).numpy()[..., ::-1].copy(), item
