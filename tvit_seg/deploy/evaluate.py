"""What exported graphs are worth on a config's validation set, next to the model."""

from collections.abc import Callable

import numpy as np
import torch
from mmengine.config import Config
from mmseg.evaluation import IoUMetric
from mmseg.models import EncoderDecoder
from torch import nn
from tqdm import tqdm

from ..models.gates import FixedGate
from .host import ThinkingHost
from .pictures import validation_set


def evaluate(
    model: nn.Module,
    cfg: Config,
    hosts: dict[str, ThinkingHost],
    count: int | None = None,
    stage: int | None = None,
) -> dict[str, float]:
    """Mean IoU of a segmentor, or accuracy of a classifier, in per cent.

    Args:
        model: The model, in evaluation mode; it gets images from the config's pipeline.
        cfg: Its config.
        hosts: Exports of it, by name; they get images as they lie on the disk.
        count: How many images; None for all.
        stage: Index of the stage where single graphs stop all images, and the model with them; None
            where there is a gate.

    Returns:
        Per cent, under ``PyTorch`` and the names given.
    """
    segments = isinstance(model, EncoderDecoder)
    score = _MeanIoU(cfg, model.decode_head.num_classes) if segments else _Accuracy()
    contestants: dict[str, Callable] = {
        "PyTorch": lambda _, item: _predict(model, item, segments),
        **{
            name: lambda picture, _, host=host: host([picture])[0].labels
            for name, host in hosts.items()
        },
    }
    areas = {name: [] for name in contestants}
    gate = model.backbone.gate
    if stage is not None:
        model.backbone.gate = FixedGate(stage)
    try:
        for picture, item in tqdm(validation_set(cfg, count), desc="evaluation", mininterval=2):
            for name, run in contestants.items():
                areas[name].append(score.compare(run(picture, item), item["data_samples"]))
    finally:
        model.backbone.gate = gate
    return {name: score.conclude(found) for name, found in areas.items()}


@torch.no_grad()
def _predict(model: nn.Module, item: dict, segments: bool) -> np.ndarray:
    batch = {name: [value] for name, value in item.items()}
    result = model.test_step(batch)[0]
    labels = result.pred_sem_seg.data[0] if segments else result.pred_label
    return labels.numpy()


class _MeanIoU:
    """mmseg's IoU, from the areas of single images."""

    def __init__(self, cfg: Config, num_classes: int):
        metrics = cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]
        found = [m for m in metrics if str(m.get("type")).split(".")[-1] == "IoUMetric"]
        self.ignore_index = found[0].get("ignore_index", 255) if found else 255
        self.num_classes = num_classes

    def compare(self, labels: np.ndarray, sample: object) -> tuple:
        truth = sample.gt_sem_seg.data[0].long()
        labels = torch.from_numpy(labels.astype(np.int64))
        return IoUMetric.intersect_and_union(labels, truth, self.num_classes, self.ignore_index)

    def conclude(self, areas: list[tuple]) -> float:
        sums = [sum(parts) for parts in zip(*areas, strict=True)]
        found = IoUMetric.total_area_to_metrics(*sums, metrics=["mIoU"])
        return 100 * float(np.nanmean(found["IoU"]))


class _Accuracy:
    """Share of right labels."""

    def compare(self, label: np.ndarray, sample: object) -> float:
        return float(int(label) == int(sample.gt_label))

    def conclude(self, right: list[float]) -> float:
        return 100 * float(np.mean(right))
