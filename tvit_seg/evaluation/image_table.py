"""Pixel counts of each image after each stage, as a CSV file, and what several trainings say."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mmseg.models.segmentors import BaseSegmentor
from torch import nn

from ..errors import DataError
from ..utils.checks import check
from ..utils.tables import write_csv
from .metrics import segmentation_quality
from .statistics import Ranking, interval, resample
from .sweep import Sweep

_AREAS = ("intersection", "union", "label")


def check_whole_images(model: nn.Module) -> None:
    """Refuse a model whose images have no row of their own in the table.

    Raises:
        ConfigError: It is a classifier, or runs in sliding windows, which exit one by one.
    """
    name = type(model).__name__
    check(isinstance(model, BaseSegmentor), "model of an image table", name, "a segmentor")
    mode = model.test_cfg.get("mode", "whole")
    check(mode == "whole", "test_cfg.mode of an image table", mode, "'whole'")


def image_rows(sweeps: Mapping[float, Sweep]) -> Iterator[dict[str, Any]]:
    """Rows of the table: a sweep for each keep ratio, 1 without pruning.

    Raises:
        ConfigError: An image has several windows, which exit one by one.
    """
    for keep_ratio, sweep in sweeps.items():
        for index, image in enumerate(sweep.images):
            found = image.predictions
            check(len(found.entropy) == 1, "windows of an image", len(found.entropy), "1")
            for stage, (both, union, _, label) in enumerate(image.stage_scores):
                areas = np.stack((both, union, label)).astype(int)
                entropy, gmacs = f"{found.entropy[0, stage]:.9g}", found.gmacs[stage]
                row: dict[str, Any] = dict(keep_ratio=keep_ratio, image=index, stage=stage)
                yield (
                    row
                    | dict(entropy=entropy, gmacs=gmacs)
                    | {
                        f"{name}.{k}": area
                        for name, values in zip(_AREAS, areas, strict=True)
                        for k, area in enumerate(values)
                    }
                )


def write_image_table(path: Path, sweeps: Mapping[float, Sweep]) -> None:
    """Write the table; create its folder."""
    write_csv(path, list(image_rows(sweeps)))


@dataclass
class ImageTable:
    """First and last stage of n images, for each of R keep ratios in decreasing order.

    Attributes:
        keep_ratios: (R,); the first is the largest.
        entropy: (n,) after the first stage, in nats.
        counts: (R, 2, n, 4, K) intersection, union, prediction and label areas.
        gmacs: (R, 2, n) of an image that exits there.
    """

    keep_ratios: list[float]
    entropy: np.ndarray
    counts: np.ndarray
    gmacs: np.ndarray

    @classmethod
    def read(cls, path: str | Path) -> "ImageTable":
        """Read a table.

        Raises:
            DataError: The file is not such a table, or lacks rows.
        """
        with Path(path).open(newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows or not {"keep_ratio", "image", "stage", "union.0"} <= rows[0].keys():
            raise DataError(f"{path} must be a table of sweep.py --images")
        ratios = sorted({float(row["keep_ratio"]) for row in rows}, reverse=True)
        last = max(int(row["stage"]) for row in rows)
        classes = sum(name.startswith("union.") for name in rows[0])
        size = (len(ratios), 2, 1 + max(int(row["image"]) for row in rows))
        counts, gmacs = np.full((*size, 4, classes), np.nan), np.full(size, np.nan)
        entropy = np.full(size[2], np.nan)
        for row in rows:
            stage = int(row["stage"])
            if stage not in (0, last):
                continue
            at = ratios.index(float(row["keep_ratio"])), int(stage == last), int(row["image"])
            areas = [[float(row[f"{name}.{k}"]) for k in range(classes)] for name in _AREAS]
            both, union, label = np.array(areas)
            counts[at] = both, union, union + both - label, label
            gmacs[at] = float(row["gmacs"])
            if stage == 0:
                entropy[at[2]] = float(row["entropy"])
        if np.isnan(gmacs).any():
            raise DataError(f"{path} must have each stage of every image at every keep ratio")
        return cls(ratios, entropy, counts, gmacs)

    @cached_property
    def always(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts (n, 4, K) and GMACs (n,) of the last stage at the largest keep ratio."""
        return self.counts[0, 1], self.gmacs[0, 1]

    def at(self, ratio: int, share: float) -> tuple[np.ndarray, np.ndarray]:
        """Counts and GMACs if a share of the images, those of high entropy, run the last stage."""
        order = np.argsort(-self.entropy, kind="stable")
        thinks = np.zeros(len(order), bool)
        thinks[order[: round(share * len(order))]] = True
        first, last = self.counts[ratio]
        counts = np.where(thinks[:, None, None], last, first)
        return counts, np.where(thinks, self.gmacs[ratio, 1], self.gmacs[ratio, 0])

    @cached_property
    def ranking(self) -> Ranking:
        """Images in the order of their entropies, at the largest keep ratio."""
        (first, last), (cheap, dear) = self.counts[0], self.gmacs[0]
        index = np.arange(len(self.entropy))
        return Ranking(self.entropy, index, first, last, dear - cheap, segmentation_quality)


def _points(
    part: tuple[np.ndarray, np.ndarray], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute mIoU and average GMACs, (draws,) each, of images counted ``weights`` (draws, n)."""
    counts, gmacs = part
    quality = segmentation_quality(np.tensordot(weights, counts, 1))["mIoU"]
    return quality, weights @ gmacs / weights.sum(1)


def compare(
    tables: Sequence[ImageTable],
    shares: Sequence[float] = (0, 0.25, 0.5, 0.75, 1),
    block: int = 1,
) -> list[dict[str, float]]:
    """Quality and cost of trainings that differ in their seed, averaged over them.

    Args:
        tables: Of the same images at the same keep ratios, one for each training.
        shares: Of the images that run the last stage.
        block: See :func:`~tvit_seg.evaluation.statistics.resample`.

    Returns:
        For each keep ratio and share: ``gmacs``, its ``cost`` in per cent of always thinking,
        ``mIoU``, ``spread`` (largest minus smallest of the trainings), and differences in mIoU
        ``to_always`` thinking and ``to_line``, the straight line from the first stage to always
        thinking, with the bounds of their 95 % intervals over images, ``.low`` and ``.high``.
    """
    first = tables[0]
    for table in tables[1:]:
        same = table.counts.shape == first.counts.shape and table.keep_ratios == first.keep_ratios
        check(same, "keep ratios", table.keep_ratios, f"{first.keep_ratios} for the same images")
    count, ratios = len(first.entropy), first.keep_ratios
    draws = np.concatenate((np.ones((1, count)), resample(count, block)))  # all images once, first

    def points(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Qualities and costs, (trainings, draws) each."""
        return np.array([_points(part, draws) for part in parts]).swapaxes(0, 1)

    low, start = points(table.at(0, 0) for table in tables)
    high, end = points(table.always for table in tables)
    rows = []
    for index, share in [
        (i, share) for i in range(len(ratios)) for share in shares if share or not i
    ]:
        quality, cost = points(table.at(index, share) for table in tables)
        row = dict(keep_ratio=ratios[index], share=share, gmacs=cost[:, 0].mean())
        row |= dict(cost=100 * (cost / end)[:, 0].mean(), mIoU=quality[:, 0].mean())
        row["spread"] = float(np.ptp(quality[:, 0]))
        line = low + (high - low) * (cost - start) / (end - start)
        for name, reference in (("to_always", high), ("to_line", line)):
            difference = (quality - reference).mean(0)
            row[name] = difference[0]
            row[f"{name}.low"], row[f"{name}.high"] = interval(difference[1:])
        rows.append(row)
    return rows


def relative_area(tables: Sequence[ImageTable], block: int = 1) -> tuple[float, float, float]:
    """Area above random images as a share of the oracle's, averaged, and its 95 % interval."""

    def mean(weights: np.ndarray | None = None) -> float:
        return float(np.mean([table.ranking.relative_area(weights) for table in tables]))

    draws = resample(len(tables[0].entropy), block)
    return mean(), *interval(map(mean, draws))
