"""Pictures of predictions, exits, sweeps and datasets."""

from .keep_masks import draw_keep_masks
from .picture_backend import PictureBackend
from .visualizer import ThinkingVisualizer

__all__ = ["PictureBackend", "ThinkingVisualizer", "draw_keep_masks"]
