"""A trained segmentor as a function of images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from .datasets.check import datasets_of
from .datasets.corrupt import GuardedPipeline
from .errors import CheckpointError, ConfigError, DataError
from .hub import from_pretrained
from .weights.fit import check_recorded
from .weights.io import get_meta, get_state_dict, read_checkpoint, recorded_backbone
from .weights.load import check_compatible, thinks

_CONVERSIONS = {
    (1, 3): cv2.COLOR_GRAY2BGR,
    (4, 3): cv2.COLOR_BGRA2BGR,
    (3, 1): cv2.COLOR_BGR2GRAY,
    (4, 1): cv2.COLOR_BGRA2GRAY,
}
"""OpenCV's conversions from and to numbers of channels."""


Image = np.ndarray | str | Path


class Predictor:
    """Segments images with a config's model, its test pipeline, and a checkpoint.

    Unlike mmseg's ``init_model`` it reads weights only, from local files, and never executes a
    config stored in a checkpoint. Pipeline, classes and palette are those of the test dataset as it
    is built, inside of wrappers such as ``ConcatDataset`` those of the first one; its files need
    not exist. Classes that a checkpoint names take precedence.

    Args:
        cfg: Config of a segmentor.
        checkpoint: Its weights, a local file; for errors see :func:`load_model`.
        device: Device of the model.
        seg_logits: Whether results carry logits at the size of the image, too.

    Attributes:
        dataset_meta: ``classes`` and ``palette``.
        img_suffix: Suffix of the dataset's images.
    """

    def __init__(
        self, cfg: Config, checkpoint: str | Path, device: str = "cpu", seg_logits: bool = False
    ):
        self.model, saved = load_model(cfg, checkpoint)
        self.model.to(device).test_cfg["seg_logits"] = seg_logits
        dataset: Any = next(datasets_of(cfg, "test_dataloader"), None)
        if dataset is None:
            raise ConfigError("the config has no test_dataloader, whose pipeline images go through")
        known = get_meta(saved).get("dataset_meta") or dataset.metainfo
        self._prepare(f"checkpoint {checkpoint}", known, dataset.pipeline, dataset)
        self.dataset_meta.setdefault("palette", dataset.metainfo.get("palette"))

    @classmethod
    def from_pretrained(
        cls, folder_or_repo_id: str | Path, device: str = "cpu", seg_logits: bool = False
    ) -> "Predictor":
        """Load a segmentor that was saved with its classes and test pipeline.

        ``tools/publish_checkpoint.py --config`` writes such a folder; for repositories and errors
        see :func:`tvit_seg.from_pretrained`.
        """
        init_default_scope("mmseg")
        predictor = cls.__new__(cls)
        predictor.model = from_pretrained(folder_or_repo_id).to(device)
        saved = predictor.model.metadata
        if not (hasattr(predictor.model, "decode_head") and saved.get("pipeline")):
            raise CheckpointError(
                f"{folder_or_repo_id} must hold a segmentor with a test pipeline; "
                "publish_checkpoint.py --config writes both"
            )
        predictor.model.test_cfg["seg_logits"] = seg_logits
        meta = saved.get("dataset_meta", {})
        predictor._prepare(str(folder_or_repo_id), meta, Compose(saved["pipeline"]))
        predictor.dataset_meta.setdefault("palette", None)
        return predictor

    def _prepare(self, name: str, meta: Any, pipeline: Compose, dataset: Any = None) -> None:
        if not (isinstance(meta, Mapping) and meta.get("classes")):
            raise CheckpointError(f"{name}: dataset_meta must name the classes")
        self.dataset_meta = dict(meta)
        self.img_suffix = getattr(dataset, "img_suffix", "")
        self._sample: dict[str, Any] = dict(
            seg_fields=[],
            label_map=getattr(dataset, "label_map", None),
            reduce_zero_label=getattr(dataset, "reduce_zero_label", False),
        )
        self._pipeline = GuardedPipeline(pipeline, getattr(dataset, "backend_args", None))

    @torch.no_grad()
    def __call__(self, image: Image | Sequence[Image]) -> SegDataSample | list[SegDataSample]:
        """Segment an image, or a batch of them; results are on the CPU and of the images' sizes.

        Args:
            image: (H, W), (H, W, 1), BGR (H, W, 3), BGRA (H, W, 4), or as many bands as the model
                takes; the path of a file, read by the loader of the test pipeline; or a sequence of
                these, which may differ in size.

        Returns:
            A data sample with ``pred_sem_seg``, ``exit_stage``, ``gate_entropy`` and ``gmacs``; a
            list of them for a sequence.

        Raises:
            DataError: An image does not fit the model, or a file cannot be read.
        """
        if isinstance(image, (np.ndarray, str, Path)):
            return self([image])[0]
        results = self.model.test_step(pseudo_collate([self._load(one) for one in image]))
        return [result.cpu() for result in results]

    def _load(self, image: Image) -> dict[str, Any]:
        """Image as the test pipeline hands it to the model."""
        if isinstance(image, np.ndarray):
            data: Any = dict(self._sample, img=self._fit(image), img_path=None)
            data.update(img_shape=image.shape[:2], ori_shape=image.shape[:2])
            for step in self._pipeline.reader.after_image():
                data = step(data)
        else:
            data = self._pipeline(dict(self._sample, img_path=str(image)))
        channels, needed = len(data["inputs"]), self._in_channels
        if channels != needed:
            raise DataError(f"the image has {channels} channels, but the model takes {needed}")
        return data

    def read(self, path: str | Path) -> np.ndarray:
        """Read an image with the loader of the test pipeline.

        Raises:
            DataError: The file is missing, or the loader cannot read it.
        """
        return self._pipeline.reader.image(dict(img_path=str(path)))

    @property
    def _in_channels(self) -> int:
        convolutions = (m for m in self.model.backbone.modules() if isinstance(m, nn.Conv2d))
        return next(convolutions).in_channels

    def _fit(self, image: np.ndarray) -> np.ndarray:
        """Convert grey, BGR and BGRA into one another where the model takes another number."""
        if image.ndim not in (2, 3) or 0 in image.shape:
            raise DataError(f"an image must be (H, W) or (H, W, C), got shape {image.shape}")
        channels = 1 if image.ndim == 2 else image.shape[2]
        code = _CONVERSIONS.get((channels, self._in_channels))
        if code is None:
            return image
        if image.dtype not in (np.uint8, np.uint16, np.float32):  # what OpenCV converts
            image = image.astype(np.float32)
        return cv2.cvtColor(np.ascontiguousarray(image), code)


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
