"""Pictures of predictions, exits, sweeps and datasets."""

from .keep_masks import draw_keep_masks
from .visualizer import ThinkingVisualizer

__all__ = ["ThinkingVisualizer", "draw_keep_masks"]
