"""Gates that remember images start anew with each validation and test."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from tvit_seg.gates import Gate


class GateResetHook(Hook):
    """Has every gate of the model forget earlier images, so that equal runs give equal results."""

    def before_val(self, runner: Runner) -> None:
        """Before each validation.

        Args:
            runner: Its model's gates are reset.
        """
        for module in runner.model.modules():
            if isinstance(module, Gate):
                module.reset()

    before_test = before_val
