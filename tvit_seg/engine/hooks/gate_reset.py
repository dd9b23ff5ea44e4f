"""Gates that remember images start anew with each validation and test."""

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from ...models.gates import Gate


class GateResetHook(Hook):
    """Has every gate of the model forget earlier images, so that equal runs give equal results."""

    def before_val(self, runner: Runner) -> None:
        """Before each validation.

        Args:
            runner: Its model's gates are reset.
        """
        reset_gates(runner.model)

    before_test = before_val


def reset_gates(model: nn.Module) -> None:
    """Has every gate of a model forget earlier images."""
    for module in model.modules():
        if isinstance(module, Gate):
            module.reset()
