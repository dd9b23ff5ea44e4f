"""Metrics of models that think, and sweeps over the threshold of their gate."""

from .curves import pareto_front
from .metrics import ExactIoUMetric, ThinkingAccuracy, ThinkingMetric

__all__ = [
    "ExactIoUMetric",
    "ThinkingAccuracy",
    "ThinkingMetric",
    "pareto_front",
]
