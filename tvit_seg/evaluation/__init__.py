"""Metrics and pictures of thinking."""

from .thinking_metric import ThinkingMetric
from .visualizer import ThinkingVisualizer

__all__ = ["ThinkingMetric", "ThinkingVisualizer"]
