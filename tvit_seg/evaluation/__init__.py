"""Metrics of models that think, and sweeps over the threshold of their gate."""

from .curves import pareto_front
from .metrics import ThinkingAccuracy, ThinkingMetric

__all__ = [
    "ThinkingAccuracy",
    "ThinkingMetric",
    "pareto_front",
]
