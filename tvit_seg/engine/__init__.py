"""What runs training and testing: runner, optimizer wrapper, CPU processes."""

from tvit_seg.engine.distributed import (
    close_distributed,
    prepare_distributed,
    run_on_first_process,
)
from tvit_seg.engine.layer_decay import LayerDecayOptimWrapperConstructor
from tvit_seg.engine.optim_wrapper import AutocastOptimWrapper
from tvit_seg.engine.runner import ThinkingRunner
from tvit_seg.engine.val_loop import AveragedValLoop

__all__ = [
    "AutocastOptimWrapper",
    "AveragedValLoop",
    "LayerDecayOptimWrapperConstructor",
    "ThinkingRunner",
    "close_distributed",
    "prepare_distributed",
    "run_on_first_process",
]
