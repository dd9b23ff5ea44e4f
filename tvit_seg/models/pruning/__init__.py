"""Token pruning: a thinking stage drops tokens and scatters them back for decoding."""

from .base import Pruning, build_pruning
from .dynamic import DynamicPruning
from .loss import PruningLoss, build_pruning_loss
from .tokens import AllTokens
from .uncertainty import UncertaintyPruning

__all__ = [
    "AllTokens",
    "DynamicPruning",
    "Pruning",
    "PruningLoss",
    "UncertaintyPruning",
    "build_pruning",
    "build_pruning_loss",
]
