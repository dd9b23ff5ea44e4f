"""Reset of gates with a history before each validation and test."""

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from ...models.gates import Gate


class GateResetHook(Hook):
    """Resets the gates before each validation and test, so that equal runs give equal results."""

    def before_val(self, runner: Runner) -> None:
        """Reset the gates of the runner's model."""
        reset_gates(runner.model)

    before_test = before_val


def reset_gates(model: nn.Module) -> None:
    """Reset the history of every gate of a model."""
    for module in model.modules():
        if isinstance(module, Gate):
            module.reset()
