"""What other gates would reach on the same images: the yardsticks of a sweep.

Areas are (images, stages, 4, K): intersection, union, prediction and label area of each class when
an image is decoded from a stage. Costs are (images, stages) in GMACs.
"""

import numpy as np
import torch
from mmseg.evaluation import IoUMetric

Curve = list[dict[str, float]]
"""Points with ``gmacs`` and ``mIoU`` (per cent), cheapest first."""


def quality(areas: np.ndarray) -> dict[str, float]:
    """mIoU, aAcc and mAcc in per cent, of areas (4, K) summed over images."""
    found = IoUMetric.total_area_to_metrics(*torch.from_numpy(areas))
    return dict(
        mIoU=100 * float(np.nanmean(found["IoU"])),
        aAcc=100 * float(found["aAcc"]),
        mAcc=100 * float(np.nanmean(found["Acc"])),
    )


def single_stages(areas: np.ndarray, costs: np.ndarray) -> Curve:
    """All images in the same stage."""
    return [_point(areas[:, s], costs[:, s]) for s in range(costs.shape[1])]


def random_gate(areas: np.ndarray, costs: np.ndarray, steps: int = 11) -> Curve:
    """A gate that stops an image with the same probability after every stage: expected areas."""
    stages = np.arange(costs.shape[1])
    curve = []
    for stop in np.linspace(1, 0, steps):
        share = stop * (1 - stop) ** stages
        share[-1] = 1 - share[:-1].sum()
        curve.append(_point(np.tensordot(areas, share, ([1], [0])), costs @ share))
    return curve


def oracle_gate(areas: np.ndarray, costs: np.ndarray, steps: int = 41) -> Curve:
    """A gate that knows the labels: each image where correct pixels outweigh their price.

    For each price of a GMAC an image stops where its share of correct pixels minus the price of the
    stage is largest. Prices run from nothing to where every image stops at once.
    """
    labelled = areas[:, :, 3].sum(-1).clip(min=1)
    correct = areas[:, :, 0].sum(-1) / labelled  # (images, stages)
    gains = (correct[:, 1:] - correct[:, :1]) / (costs[:, 1:] - costs[:, :1])
    prices = np.quantile(gains, np.linspace(1, 0, steps)) if gains.size else np.zeros(1)
    points = {}
    for price in prices:
        best = (correct - price * costs).argmax(axis=1)
        rows = np.arange(len(best))
        point = _point(areas[rows, best], costs[rows, best])
        points[round(point["gmacs"], 9)] = point
    return [points[cost] for cost in sorted(points)]


def gap(gate: Curve, oracle: Curve, steps: int = 200) -> float:
    """Area between two curves over the costs they share, divided by the range: mIoU points."""
    low = max(gate[0]["gmacs"], oracle[0]["gmacs"])
    high = min(gate[-1]["gmacs"], oracle[-1]["gmacs"])
    if high <= low:
        return 0.0
    grid = np.linspace(low, high, steps)
    heights = [
        np.interp(grid, [p["gmacs"] for p in curve], [p["mIoU"] for p in curve])
        for curve in (oracle, gate)
    ]
    return float((heights[0] - heights[1]).mean())


def _point(areas: np.ndarray, costs: np.ndarray) -> dict[str, float]:
    return dict(gmacs=float(costs.mean()), mIoU=quality(areas.sum(0))["mIoU"])
