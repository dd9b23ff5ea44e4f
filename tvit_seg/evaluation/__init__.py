"""Metrics and pictures of thinking."""

from .pareto import pareto_front
from .thinking_accuracy import ThinkingAccuracy
from .thinking_metric import ThinkingMetric

__all__ = [
    "ThinkingAccuracy",
    "ThinkingMetric",
    "pareto_front",
]
