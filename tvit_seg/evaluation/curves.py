"""Curves of quality against cost: baselines and bound for the gate, and the Pareto front.

Scores are (images, stages, ...), the counts of a stage evaluator when an image (all its windows)
exits after a stage. Costs are (images, stages, 2), GMACs and milliseconds.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf

import numpy as np

Curve = list[dict[str, float]]
"""Points with ``gmacs``, ``ms`` and qualities (per cent), cheapest first."""

Quality = Callable[[np.ndarray], dict[str, float]]


def point(scores: np.ndarray, costs: np.ndarray, quality: Quality) -> dict[str, float]:
    """Average scores (images, ...) and costs (images, 2) into one point of a curve."""
    gmacs, ms = costs.mean(0).tolist()
    qualities = {name: float(value) for name, value in quality(scores.sum(0)).items()}
    return dict(gmacs=gmacs, ms=ms, **qualities)


def single_stages(scores: np.ndarray, costs: np.ndarray, quality: Quality) -> Curve:
    """Points with all windows of all images in the same stage."""
    return [point(scores[:, s], costs[:, s], quality) for s in range(costs.shape[1])]


def random_gate(scores: np.ndarray, costs: np.ndarray, quality: Quality, steps: int = 11) -> Curve:
    """Expected curve of a gate that stops whole images with one probability after every stage."""
    stages = np.arange(costs.shape[1])
    curve = []
    for stop in np.linspace(1, 0, steps):
        share = stop * (1 - stop) ** stages
        share[-1] = 1 - share[:-1].sum()
        mean_scores, mean_costs = (np.tensordot(x, share, ([1], [0])) for x in (scores, costs))
        curve.append(point(mean_scores, mean_costs, quality))
    return curve


def oracle_gate(
    choices: Sequence[tuple[np.ndarray, np.ndarray]],
    quality: Quality,
    correct: Callable[[np.ndarray], np.ndarray],
    steps: int = 41,
) -> Curve:
    """Curve of a gate that knows the labels and picks each image's best choice at a price.

    At a price per GMAC, each image gets the choice with the largest share of correct pixels (for
    classification, 1 if correct) minus its price. Prices are quantiles of the slopes between an
    image's choices; at negative ones images continue at a loss.

    Args:
        choices: For each image, scores (P, ...) and costs (P, 2) of the exits it can choose from.
        quality: Maps summed scores to qualities.
        correct: Maps scores (P, ...) to shares (P,).
        steps: Number of prices.
    """
    shares = [correct(scores) for scores, _ in choices]
    slopes = np.concatenate(
        [_slopes(s, c[:, 0]) for s, (_, c) in zip(shares, choices, strict=True)]
    )
    prices = np.zeros(1)
    if slopes.size:
        inner = np.quantile(slopes, np.linspace(1, 0, steps))
        prices = np.array([inner[0] + 1, *inner, inner[-1] - 1])  # all at the cheapest, the dearest
    points = {}
    for price in prices:
        best = [(s - price * c[:, 0]).argmax() for s, (_, c) in zip(shares, choices, strict=True)]
        taken = [(s[i], c[i]) for i, (s, c) in zip(best, choices, strict=True)]
        scores, costs = (np.stack(part) for part in zip(*taken, strict=True))
        found = point(scores, costs, quality)
        points[round(found["gmacs"], 9)] = found
    return [points[cost] for cost in sorted(points)]


def _slopes(shares: np.ndarray, gmacs: np.ndarray) -> np.ndarray:
    """Gain per GMAC between all pairs of choices of different cost."""
    one, other = np.triu_indices(len(gmacs), 1)
    apart = gmacs[other] != gmacs[one]
    return (shares[other] - shares[one])[apart] / (gmacs[other] - gmacs[one])[apart]


def gap(gate: Curve, oracle: Curve, metric: str, steps: int = 200) -> float:
    """Average the quality difference from one curve to another over their common GMACs."""
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


def pareto_front(
    points: Sequence[Mapping[str, float]], cost: str = "gmacs", quality: str = "mIoU"
) -> list[Mapping[str, float]]:
    """Select the settings with better quality than any other at the same or a lower cost.

    ``cost`` and ``quality`` are keys of the points, e.g. of gate thresholds and keep ratios.

    Returns:
        The points, cheapest first; of equal ones the first. NaN is never on the front.
    """
    front, best = [], -inf
    finite = [point for point in points if point[cost] == point[cost]]
    for candidate in sorted(finite, key=lambda point: (point[cost], -point[quality])):
        if candidate[quality] > best:
            front.append(candidate)
            best = candidate[quality]
    return front
