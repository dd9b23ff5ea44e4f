"""What other gates would reach on the same images: the yardsticks of a sweep.

Scores are (images, stages, ...), what a judge counts when an image stops after a stage. Costs are
(images, stages, 2), GMACs and milliseconds.
"""

from collections.abc import Callable

import numpy as np

Curve = list[dict[str, float]]
"""Points with ``gmacs``, ``ms`` and qualities (per cent), cheapest first."""

Quality = Callable[[np.ndarray], dict[str, float]]


def point(scores: np.ndarray, costs: np.ndarray, quality: Quality) -> dict[str, float]:
    """One point of a curve, of scores (images, ...) and costs (images, 2)."""
    gmacs, ms = costs.mean(0).tolist()
    return dict(gmacs=gmacs, ms=ms, **quality(scores.sum(0)))


def single_stages(scores: np.ndarray, costs: np.ndarray, quality: Quality) -> Curve:
    """All images in the same stage."""
    return [point(scores[:, s], costs[:, s], quality) for s in range(costs.shape[1])]


def random_gate(scores: np.ndarray, costs: np.ndarray, quality: Quality, steps: int = 11) -> Curve:
    """A gate that stops an image with the same probability after every stage: expected scores."""
    stages = np.arange(costs.shape[1])
    curve = []
    for stop in np.linspace(1, 0, steps):
        share = stop * (1 - stop) ** stages
        share[-1] = 1 - share[:-1].sum()
        expected = (np.tensordot(x, share, ([1], [0])) for x in (scores, costs))
        curve.append(point(*expected, quality))
    return curve


def oracle_gate(
    scores: np.ndarray,
    costs: np.ndarray,
    quality: Quality,
    correct: Callable[[np.ndarray], np.ndarray],
    steps: int = 41,
) -> Curve:
    """A gate that knows the labels: each image where correctness outweighs its price.

    For each price of a GMAC an image stops where its share of correct pixels (or its being correct)
    minus the price of the stage is largest. Prices run from nothing to where every image stops at
    once.

    Args:
        scores: (images, stages, ...).
        costs: (images, stages, 2).
        quality: Of summed scores.
        correct: Maps scores (images, stages, ...) to shares (images, stages).
        steps: Number of prices.
    """
    right, gmacs = correct(scores), costs[..., 0]
    gains = (right[:, 1:] - right[:, :1]) / (gmacs[:, 1:] - gmacs[:, :1])
    prices = np.quantile(gains, np.linspace(1, 0, steps)) if gains.size else np.zeros(1)
    points = {}
    for price in prices:
        best = (right - price * gmacs).argmax(axis=1)
        rows = np.arange(len(best))
        found = point(scores[rows, best], costs[rows, best], quality)
        points[round(found["gmacs"], 9)] = found
    return [points[cost] for cost in sorted(points)]


def gap(gate: Curve, oracle: Curve, metric: str, steps: int = 200) -> float:
    """Area between two curves over the GMACs they share, divided by the range: points of quality.

    Args:
        gate: The lower curve.
        oracle: The upper curve.
        metric: Which quality.
        steps: Grid of the integral.
    """
    low = max(gate[0]["gmacs"], oracle[0]["gmacs"])
    high = min(gate[-1]["gmacs"], oracle[-1]["gmacs"])
    if high <= low:
        return 0.0
    grid = np.linspace(low, high, steps)
    heights = [
        np.interp(grid, [p["gmacs"] for p in curve], [p[metric] for p in curve])
        for curve in (oracle, gate)
    ]
    return float((heights[0] - heights[1]).mean())
