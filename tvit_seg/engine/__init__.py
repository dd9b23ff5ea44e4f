"""What runs training and testing: runner, optimizer wrapper, CPU processes."""

from tvit_seg.engine.distributed import close_distributed, prepare_distributed
from tvit_seg.engine.optim_wrapper import AutocastOptimWrapper
from tvit_seg.engine.runner import ThinkingRunner

__all__ = ["AutocastOptimWrapper", "ThinkingRunner", "close_distributed", "prepare_distributed"]
