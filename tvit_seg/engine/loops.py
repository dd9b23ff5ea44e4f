"""Validation of the weights in training next to their moving average."""

from mmengine.hooks import EMAHook
from mmengine.runner import ValLoop

from ..registry import register
from .hooks.gate_reset import reset_gates


@register("LOOPS")
class AveragedValLoop(ValLoop):
    """Validates twice where there is an ``EMAHook``: raw weights, then averaged ones.

    mmengine validates the averaged weights only. Here they keep the plain names of the metrics, and
    those of the raw weights get the prefix ``raw/``. Takes the arguments of ``ValLoop``.
    """

    def run(self) -> dict:
        """Validate, and return the metrics of both."""
        self.runner.call_hook("before_val")
        raw = {}
        if any(isinstance(hook, EMAHook) for hook in self.runner.hooks):
            self.runner.logger.info("validating the raw weights, then their moving average")
            raw = {f"raw/{name}": value for name, value in self._evaluate().items()}
        self.runner.call_hook("before_val_epoch")  # swaps the averaged weights in
        metrics = {**self._evaluate(), **raw}
        self.runner.call_hook("after_val_epoch", metrics=metrics)
        self.runner.call_hook("after_val")
        return metrics

    def _evaluate(self) -> dict:
        self.runner.model.eval()
        reset_gates(self.runner.model)  # their history is of other weights
        for index, data_batch in enumerate(self.dataloader):
            self.run_iter(index, data_batch)
        return self.evaluator.evaluate(len(self.dataloader.dataset))
