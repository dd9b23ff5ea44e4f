"""Pictures of predictions, exits, sweeps and datasets."""

from .keep_masks import draw_kept_tokens
from .visualizer import ThinkingVisualizer

__all__ = ["ThinkingVisualizer", "draw_kept_tokens"]
