"""Token pruning: a thinking stage drops tokens and scatters them back for decoding."""

from .dynamic import DynamicPruning, build_pruning
from .loss import PruningLoss, build_pruning_loss
from .tokens import AllTokens

__all__ = ["AllTokens", "DynamicPruning", "PruningLoss", "build_pruning", "build_pruning_loss"]
