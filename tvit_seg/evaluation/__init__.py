"""Metrics and pictures of thinking."""

from .thinking_accuracy import ThinkingAccuracy
from .thinking_metric import ThinkingMetric
from .visualizer import ThinkingVisualizer

__all__ = ["ThinkingAccuracy", "ThinkingMetric", "ThinkingVisualizer"]
