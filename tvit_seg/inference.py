"""A trained segmentor as a function of images."""

from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample
from torch import nn

from .errors import CheckpointError
from .weights.io import get_meta, get_state_dict, read_checkpoint
from .weights.load import check_compatible


class Predictor:
    """Segments images with a config's model, its test pipeline, and a checkpoint.

    Unlike mmseg's ``init_model`` it reads weights only, from local files, and runs no config that a
    checkpoint brings along.

    Args:
        cfg: Config of a segmentor.
        checkpoint: Its weights, a local file.
        device: Where to run.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        CheckpointError: If it is damaged, holds more than weights, or is of another model.
    """

    def __init__(self, cfg: Config, checkpoint: str | Path, device: str = "cpu"):
        self.model, saved = load_model(cfg, checkpoint)
        self.model.to(device)
        self.dataset_meta = _own_names(saved, checkpoint) or _dataset_meta(cfg)
        self._pipeline = Compose(_pipeline(cfg))

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> SegDataSample:
        """Segments an image.

        Args:
            image: (H, W, 3) BGR, as OpenCV reads it.

        Returns:
            The result at the size of the image, on the CPU.
        """
        data = self._pipeline(dict(img=image))
        batch = dict(inputs=[data["inputs"]], data_samples=[data["data_samples"]])
        return self.model.test_step(batch)[0].cpu()


def load_model(cfg: Config, checkpoint: str | Path | None) -> tuple[nn.Module, dict]:
    """Builds a config's model, in evaluation mode.

    Args:
        cfg: Config with a ``model``.
        checkpoint: Its weights, a local file; None for random ones.

    Returns:
        The model, and what else the checkpoint holds.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        CheckpointError: If it is damaged, holds more than weights, or is of another model.
    """
    init_default_scope(cfg.get("default_scope", "mmseg"))
    if checkpoint is None:
        return MODELS.build(cfg.model).eval(), {}
    saved = read_checkpoint(str(checkpoint))
    weights = get_state_dict(saved)
    model = MODELS.build(cfg.model)
    check_compatible(model, weights, str(checkpoint))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:  # torch names what is missing or of another shape
        raise CheckpointError(f"checkpoint {checkpoint}: {error}") from error
    return model.eval(), saved


def _pipeline(cfg: Config) -> list[dict]:
    """The test pipeline for images in memory, without labels."""
    steps = [dict(step) for step in cfg.test_dataloader.dataset.pipeline]
    loaders = ("LoadImageFromFile", "LoadAnnotations")
    kept = [step for step in steps if str(step["type"]).split(".")[-1] not in loaders]
    return [dict(type="mmseg.LoadImageFromNDArray"), *kept]


def _own_names(saved: dict, path: str | Path) -> dict | None:
    """The classes and colours that a checkpoint brings along, if they are such."""
    known = get_meta(saved).get("dataset_meta")
    if not known:
        return None
    classes, palette = (isinstance(known, dict) and known.get(k) for k in ("classes", "palette"))
    named = isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes)
    coloured = isinstance(palette, (list, tuple)) and all(map(_is_colour, palette))
    if not named or (palette is not None and not coloured):
        raise CheckpointError(f"checkpoint {path}: dataset_meta does not name classes and colours")
    return known


def _is_colour(value: object) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and all(isinstance(part, int) and 0 <= part < 256 for part in value)
    )


def _dataset_meta(cfg: Config) -> dict:
    kind = DATASETS.get(cfg.test_dataloader.dataset.type)
    return dict(kind.METAINFO)
