"""Training and testing: runner, loops, optimizer wrapper, processes, command lines."""

from .distributed import close_distributed, prepare_distributed, run_on_first_process
from .loops import AveragedValLoop
from .optim import AutocastOptimWrapper, LayerDecayOptimWrapperConstructor
from .runner import ThinkingRunner

__all__ = [
    "AutocastOptimWrapper",
    "AveragedValLoop",
    "LayerDecayOptimWrapperConstructor",
    "ThinkingRunner",
    "close_distributed",
    "prepare_distributed",
    "run_on_first_process",
]
