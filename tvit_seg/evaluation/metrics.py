"""Exits, quality of each thinking stage, and average cost, counted image by image."""

import logging
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric
from prettytable import PrettyTable
from torch import Tensor

from ..errors import ConfigError
from ..registry import register
from ..utils.checks import check, check_integer
from .exits import take_exits

_EXACT_IN_FLOAT32 = 2**24  # above, adding 1 changes nothing


def pixel_counts(
    prediction: Tensor, labels: Tensor, num_classes: int, ignore_index: int = 255
) -> np.ndarray:
    """Count pixels of label maps (H, W), except where the label is ``ignore_index``.

    Returns:
        (4, K) int64 intersection, union, prediction and label areas, which add up over images.
        Values outside [0, K) belong to no class.
    """
    labels = labels.to(prediction.device)
    counted = labels != ignore_index
    rows, columns = (_bins(values[counted], num_classes) for values in (labels, prediction))
    side = num_classes + 1  # the last one is no class
    confusion = torch.bincount(rows.mul_(side).add_(columns), minlength=side**2)
    confusion = confusion.view(side, side).cpu().numpy()
    both, predicted, label = (
        x[:-1] for x in (confusion.diagonal(), confusion.sum(0), confusion.sum(1))
    )
    return np.stack([both, predicted + label - both, predicted, label])


def _bins(values: Tensor, num_classes: int) -> Tensor:
    """Return new int64 values, with ``num_classes`` in place of those outside [0, K)."""
    values = values.long()
    return values.where((values >= 0) & (values < num_classes), num_classes)


def segmentation_quality(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Compute mIoU, aAcc and mAcc (...) in per cent from summed pixel counts (..., 4, K).

    Classes that neither occur nor are predicted do not count, as in ``IoUMetric``.
    """
    both, union, _, label = np.moveaxis(counts, -2, 0)  # (..., K) each
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")  # no label at all: NaN
        return dict(
            mIoU=100 * np.nanmean(both / union, axis=-1),
            aAcc=100 * both.sum(-1) / label.sum(-1),
            mAcc=100 * np.nanmean(both / label, axis=-1),
        )


def topk_hits(scores: Tensor, labels: Tensor, topk: Sequence[int]) -> Tensor:
    """Find labels among the k best classes: (n, number of k) bool, from (n, K) and (n,) or (1,)."""
    found = scores.topk(max(topk)).indices == labels.to(scores.device).reshape(-1, 1)
    return torch.stack([found[:, :k].any(1) for k in topk], dim=1)


def thinks_by_difficulty(
    exits: Sequence[Sequence[int]], difficulties: Sequence[float]
) -> dict[str, float]:
    """Compute ``thinks.{level}``, in per cent, for each third of the range [0, 1] of difficulties.

    It is the share of ``exits``, one sequence per image, beyond stage 0; NaN without images.
    """
    thirds = np.array([min(int(3 * difficulty), 2) for difficulty in difficulties])
    shares = {}
    for index, level in enumerate(("easy", "medium", "hard")):
        chosen = [e for e, third in zip(exits, thirds, strict=True) if third == index]
        thinks = np.concatenate(chosen) > 0 if chosen else np.array([np.nan])
        shares[f"thinks.{level}"] = round(100 * float(thinks.mean()), 2)
    return shares


@register("METRICS")
class ExactIoUMetric(IoUMetric):
    """mmseg's ``IoUMetric`` with the same arguments and results, but pixels counted in integers.

    mmseg counts in float32, where counting by ones ends at 2^24 = 16,777,216 pixels of a class
    in an image. Evaluations with such images log once that the two may differ.
    """

    @staticmethod
    def intersect_and_union(
        pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int
    ) -> tuple[Tensor, ...]:
        """Count an image's intersection, union, prediction and label areas, (K,) float64 each."""
        counts = pixel_counts(pred_label, label, num_classes, ignore_index)
        return tuple(torch.from_numpy(counts).double())

    def compute_metrics(self, results: list[tuple[Tensor, ...]]) -> dict[str, float]:
        """Compute mmseg's metrics from the areas of all images."""
        large = sum(any(area.max() > _EXACT_IN_FLOAT32 for area in areas) for areas in results)
        if large:
            print_log(
                f"{large} images have more than {_EXACT_IN_FLOAT32:,} pixels of a class, of which "
                "mmseg's own IoUMetric would not count all: its metrics may differ from these",
                MMLogger.get_current_instance(),
                logging.WARNING,
            )
        return super().compute_metrics(results)


class _ExitMetric(BaseMetric):
    """Exits and average cost, common to both tasks."""

    model: str
    """Source of results with exits."""

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count a batch of results, which must contain exits."""
        name = type(self).__name__
        for sample in data_samples:
            if "exit_stage" not in sample:
                raise ConfigError(f"{name} found no exit_stage in results: it needs {self.model}")
            self.results.append(
                dict(
                    exits=sample["exit_stage"].reshape(-1).tolist(),
                    num_stages=sample["gate_entropy"].shape[-1],
                    gmacs=sample["gmacs"],
                    backbone_only=sample.get("backbone_only", False),
                    **self._count(sample),
                )
            )

    @abstractmethod
    def _count(self, sample: dict) -> dict:
        """Counts of one image."""

    @abstractmethod
    def _summarise(self, results: list[dict], exits: np.ndarray) -> tuple[dict, PrettyTable]:
        """Metrics of all images except cost; also from exit stages (images or windows,)."""

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Sum up the images of all processes; see the class for the metrics."""
        metrics, table = self._summarise(results, np.concatenate([r["exits"] for r in results]))
        metrics["gmacs"] = round(float(np.mean([r["gmacs"] for r in results])), 4)
        part = " of the backbone" if any(r["backbone_only"] for r in results) else ""
        text = f"\n{table}\naverage GMACs{part}: {metrics['gmacs']}"
        print_log(text, MMLogger.get_current_instance())
        return metrics


@register("METRICS")
class ThinkingMetric(_ExitMetric):
    """Exit share and mIoU of each thinking stage, and the average cost.

    Complements ``IoUMetric``, which measures all images together. In ``slide`` mode the unit is the
    window. In a segmentor that is unaware of stages, such as mmseg's ``EncoderDecoder``, exits are
    those that its thinking backbone has recorded, and the cost is the backbone's.

    Metrics are ``stage{i}.share`` (per cent of images or windows), ``stage{i}.mIoU`` (per cent, NaN
    if none exited), ``gmacs`` (average per image, 10^9) and, if difficulties are known,
    ``thinks.{level}`` (per cent that continue beyond stage 0). Without labels, and with sliding
    windows in a segmentor that is unaware of stages, there is no ``mIoU``.

    Args:
        ignore_index: Label of pixels to leave out.
        difficulty_key: Entry of the metainfo with a difficulty in [0, 1]; if given, ``thinks`` is
            reported for the easy, medium and hard third of the range.
        **kwargs: Arguments of mmengine's ``BaseMetric``.
    """

    default_prefix = "thinking"
    model = "a ThinkingEncoderDecoder, or a thinking backbone in another segmentor"

    def __init__(self, ignore_index: int = 255, difficulty_key: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.ignore_index = ignore_index
        self.difficulty_key = difficulty_key

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count a batch of results, with their exits or with those that the backbone recorded."""
        if any("exit_stage" not in sample for sample in data_samples):
            exits = take_exits(len(data_samples)) or [{}] * len(data_samples)
            pairs = zip(data_samples, exits, strict=True)
            data_samples = [{**sample, **own} for sample, own in pairs]
        super().process(data_batch, data_samples)

    def _count(self, sample: dict) -> dict:
        key = self.difficulty_key
        if key and key not in sample:
            raise ConfigError(f"samples have no {key!r}: meta_keys of PackSegInputs must name it")
        return dict(counts=self._stage_counts(sample), difficulty=sample[key] if key else None)

    def _stage_counts(self, sample: dict) -> np.ndarray | None:
        """Pixel counts of each stage; None if the label or the windows are unknown."""
        if "gt_sem_seg" not in sample or sample["windows"] is None:
            return None
        prediction, labels = (
            sample[name]["data"].squeeze(0) for name in ("pred_sem_seg", "gt_sem_seg")
        )
        num_classes = len(self.dataset_meta["classes"])
        counts = np.zeros((sample["gate_entropy"].shape[-1], 4, num_classes), np.int64)
        for stage, window in zip(sample["exit_stage"].reshape(-1), sample["windows"], strict=True):
            pixels = _pixels(window, prediction.shape)
            own = prediction[pixels], labels[pixels]
            counts[stage] += pixel_counts(*own, num_classes, self.ignore_index)
        return counts

    def _summarise(self, results: list[dict], exits: np.ndarray) -> tuple[dict, PrettyTable]:
        counts = [r["counts"] for r in results if r["counts"] is not None]
        total = np.sum(counts, axis=0)
        head = ["stage", "exits", "share (%)", *["mIoU of these (%)"] * bool(counts)]
        metrics, table = {}, PrettyTable(head)
        for stage in range(results[0]["num_stages"]):
            count = int((exits == stage).sum())
            share = 100 * count / len(exits)
            metrics[f"stage{stage}.share"] = round(share, 2)
            row = [stage, count, f"{share:.1f}"]
            if counts:
                miou = float(segmentation_quality(total[stage])["mIoU"]) if count else np.nan
                metrics[f"stage{stage}.mIoU"] = round(miou, 2)
                row.append(f"{miou:.2f}")
            table.add_row(row)
        if self.difficulty_key:
            parts, difficulties = ([r[key] for r in results] for key in ("exits", "difficulty"))
            metrics.update(thinks_by_difficulty(parts, difficulties))
        return metrics, table


@register("METRICS")
class ThinkingAccuracy(_ExitMetric):
    """Top-k accuracy with the gate and of every stage, exit shares, average cost.

    Needs the results of a :class:`~tvit_seg.ThinkingClassifier`; with
    ``test_cfg=dict(per_stage=True)`` reports the accuracy of every stage on all images.

    Metrics in per cent are ``top{k}`` with the gate and, of each stage, ``stage{i}.top{k}`` if all
    images ran it, ``stage{i}.share`` of images that exited there and ``stage{i}.exit_top{k}`` of
    these (NaN if none did). ``gmacs`` is the average per image, 10^9.

    Args:
        topk: Values of k, each >= 1.
        **kwargs: Arguments of mmengine's ``BaseMetric``.
    """

    default_prefix = "accuracy"
    model = "a ThinkingClassifier"

    def __init__(self, topk: Sequence[int] = (1, 5), **kwargs: Any):
        super().__init__(**kwargs)
        check(len(topk) > 0, "topk", topk, "at least one integer")
        self.topk = tuple(check_integer("topk", k) for k in topk)

    def _count(self, sample: dict) -> dict:
        scores, label, stages = sample["pred_score"], sample["gt_label"], sample.get("stage_scores")
        fits = max(self.topk) <= len(scores)
        check(fits, "topk", self.topk, f"at most the number of classes, {len(scores)}")
        return dict(
            hits=topk_hits(scores[None], label, self.topk)[0].tolist(),
            stage_hits=None if stages is None else topk_hits(stages, label, self.topk).tolist(),
        )

    def _summarise(self, results: list[dict], exits: np.ndarray) -> tuple[dict, PrettyTable]:
        names = [f"top{k}" for k in self.topk]
        head = ["exits (%)", *(f"{n} of these" for n in names), *(f"{n} of all" for n in names)]
        table = PrettyTable(["stage", *head])
        hits = np.array([r["hits"] for r in results])  # (images, number of k)
        overall = self._accuracies("top", hits)
        metrics = dict(overall)
        for stage in range(results[0]["num_stages"]):
            stopped = exits == stage
            of_stage = {"share": round(100 * float(stopped.mean()), 2)}
            of_stage.update(self._accuracies("exit_top", hits[stopped]))
            if results[0]["stage_hits"] is not None:
                all_hits = np.array([r["stage_hits"][stage] for r in results])
                of_stage.update(self._accuracies("top", all_hits))
            metrics.update({f"stage{stage}.{name}": value for name, value in of_stage.items()})
            table.add_row([stage, *of_stage.values(), *["-"] * (len(head) - len(of_stage))])
        table.add_row(["gate", 100, *overall.values(), *("-" for _ in names)])
        return metrics, table

    def _accuracies(self, name: str, hits: np.ndarray) -> dict[str, float]:
        means = hits.mean(axis=0) if len(hits) else np.full(len(self.topk), np.nan)
        pairs = zip(self.topk, means.tolist(), strict=True)
        return {f"{name}{k}": round(100 * mean, 2) for k, mean in pairs}


def _pixels(window: Tensor, shape: Sequence[int]) -> tuple[slice, slice]:
    """A window, given as shares of the image, in pixels of the label map."""
    height, width = shape
    top, left, bottom, right = (window * torch.tensor([height, width] * 2)).round().int().tolist()
    return slice(top, bottom), slice(left, right)
