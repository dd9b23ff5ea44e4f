"""Metrics and pictures of thinking."""

from .kept_tokens import draw_kept_tokens
from .pareto import pareto_front
from .thinking_accuracy import ThinkingAccuracy
from .thinking_metric import ThinkingMetric
from .visualizer import ThinkingVisualizer

__all__ = [
    "ThinkingAccuracy",
    "ThinkingMetric",
    "ThinkingVisualizer",
    "draw_kept_tokens",
    "pareto_front",
]
