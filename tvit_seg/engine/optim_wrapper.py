"""Mixed precision in bfloat16, on the CPU too."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from ..registry import register


@register("OPTIM_WRAPPERS")
class AutocastOptimWrapper(OptimWrapper):
    """Runs the model under bfloat16 autocast on the device it lives on.

    mmengine's ``AmpOptimWrapper`` needs an accelerator. bfloat16 has the range of float32, so the
    loss is not scaled. Takes the arguments of mmengine's ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Wraps the forward pass of a training step.

        Args:
            model: The model in training, wrapped or not.
        """
        device_type = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device_type, dtype=torch.bfloat16):
            yield
