"""Account of the corrupt images that training passed over."""

from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner


class SkipCountHook(Hook):
    """Logs every corrupt image that this process passed over, and their number in all processes.

    For training data with ``skip_corrupt=True``.

    Args:
        interval: Iterations between looks at all processes.
    """

    def __init__(self, interval: int = 50):
        self.interval = interval
        self.count = 0
        self._reported = 0
        self._seen: set[str] = set()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Looks for samples that stand in for corrupt ones.

        Args:
            runner: Knows the iteration and logs.
            batch_idx: Not used.
            data_batch: Has ``data_samples``.
            outputs: Not used.
        """
        for sample in data_batch["data_samples"]:
            for text in sample.get("skipped", ()):
                self.count += 1
                if text not in self._seen:
                    self._seen.add(text)
                    runner.logger.warning(f"skipped {text}")
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            total = torch.tensor(self.count)
            all_reduce(total)  # every process comes by here at this iteration
            if total > self._reported:
                self._reported = int(total)
                runner.logger.warning(f"corrupt images were skipped {self._reported} times so far")
