"""A trained segmentor as a function of images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample
from torch import nn

from .errors import CheckpointError
from .weights.fit import check_recorded
from .weights.io import get_meta, get_state_dict, read_checkpoint, recorded_backbone
from .weights.load import check_compatible, thinks

_LOADERS = ("LoadImageFromFile", "LoadAnnotations")


class Predictor:
    """Segments images with a config's model, its test pipeline, and a checkpoint.

    Unlike mmseg's ``init_model`` it reads weights only, from local files, and never executes a
    config stored in a checkpoint.

    Args:
        cfg: Config of a segmentor.
        checkpoint: Its weights, a local file; for errors see :func:`load_model`.
        device: Device of the model.
        seg_logits: Whether results carry logits at the size of the image, too.
    """

    def __init__(
        self, cfg: Config, checkpoint: str | Path, device: str = "cpu", seg_logits: bool = False
    ):
        self.model, saved = load_model(cfg, checkpoint)
        self.model.to(device).test_cfg["seg_logits"] = seg_logits
        dataset = cfg.test_dataloader.dataset
        known = get_meta(saved).get("dataset_meta") or DATASETS.get(dataset.type).METAINFO
        if not (isinstance(known, Mapping) and "classes" in known):
            raise CheckpointError(f"checkpoint {checkpoint}: dataset_meta must name the classes")
        self.dataset_meta = dict(known)
        steps = [s for s in dataset.pipeline if str(s["type"]).split(".")[-1] not in _LOADERS]
        self._pipeline = Compose([dict(type="mmseg.LoadImageFromNDArray"), *steps])

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> SegDataSample:
        """Segment an image (H, W, 3) BGR; the result is on the CPU and of the same size."""
        batch = pseudo_collate([self._pipeline(dict(img=image))])
        return self.model.test_step(batch)[0].cpu()


def load_model(cfg: Config, checkpoint: str | Path | None) -> tuple[nn.Module, dict]:
    """Build a config's model in evaluation mode; return it and the content of the checkpoint.

    Args:
        cfg: Config with a ``model``.
        checkpoint: Its weights, a local file; None for random ones.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        CheckpointError: It is damaged, holds more than weights, or is of another model.
    """
    init_default_scope(cfg.get("default_scope", "mmseg"))
    saved = {} if checkpoint is None else read_checkpoint(checkpoint)
    model = MODELS.build(cfg.model).eval()
    if checkpoint is not None:
        weights = get_state_dict(saved)
        check_compatible(model, weights, checkpoint)
        if thinks(model):
            check_recorded(model.backbone, recorded_backbone(saved))
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:  # torch names what is missing or of another shape
            raise CheckpointError(f"checkpoint {checkpoint}: {error}") from error
    return model, saved
