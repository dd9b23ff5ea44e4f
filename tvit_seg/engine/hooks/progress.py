"""Training log lines in addition to mmengine's."""

from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner


class FirstStepHook(Hook):
    """Logs the first step after the start, long before mmengine's ``LoggerHook`` would."""

    priority = "BELOW_NORMAL"  # after the timer

    def __init__(self):
        self._done = False

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Log as mmengine's hook does, once."""
        if not self._done:
            self._done = True
            _, text = runner.log_processor.get_log_after_iter(runner, batch_idx, "train")
            runner.logger.info(text)


class SkipCountHook(Hook):
    """Logs the corrupt images that ``skip_corrupt=True`` skipped, and their number."""

    interval = 50  # iterations between two sums over all processes

    def __init__(self):
        self.count = 0
        self._reported = 0
        self._named: set[str] = set()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Find the samples that replace corrupt ones: ``skipped`` in ``data_samples``."""
        for sample in data_batch["data_samples"]:
            for text in sample.get("skipped", ()):
                self.count += 1
                if text not in self._named:
                    self._named.add(text)
                    runner.logger.warning(f"skipped {text}")
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            total = torch.tensor(self.count)
            all_reduce(total)  # every process calls it at this iteration
            if total > self._reported:
                self._reported = int(total)
                runner.logger.warning(f"corrupt images were skipped {self._reported} times so far")
