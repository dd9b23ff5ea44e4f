"""What runs training and testing: runner, optimizer wrapper, CPU processes."""

from .distributed import close_distributed, prepare_distributed, run_on_first_process
from .layer_decay import LayerDecayOptimWrapperConstructor
from .loops import AveragedValLoop
from .optim_wrapper import AutocastOptimWrapper
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
