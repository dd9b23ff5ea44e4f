"""Saving checkpoints so that the last good one is never lost."""

from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from tvit_seg.registry import register

_LEAST = 2


@register("HOOKS")
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, but a file goes only when the one in its place is complete.

    mmengine removes the oldest checkpoint, and the best one so far, before it writes the next. At
    least two checkpoints are kept. :class:`ThinkingRunner` puts this hook in the place of
    ``CheckpointHook``. Takes the same arguments.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if 0 < self.max_keep_ckpts < _LEAST:
            print_log(
                f"max_keep_ckpts={self.max_keep_ckpts}: {_LEAST} checkpoints are kept, in case a "
                "file is damaged",
                logger="current",
            )
            self.max_keep_ckpts = _LEAST

    def before_train(self, runner: Runner) -> None:
        """Finds what to keep; removing waits from here on.

        Args:
            runner: The runner of the training.
        """
        super().before_train(runner)
        self.file_backend = _RemovesLater(self.file_backend)

    def _save_checkpoint_with_step(self, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint_with_step(*args, **kwargs)
        self.file_backend.remove_now()

    def _save_best_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._save_best_checkpoint(*args, **kwargs)
        self.file_backend.remove_now()


class _RemovesLater:
    """A file backend that only notes what to remove."""

    def __init__(self, backend: Any):
        self._backend = backend
        self._waiting: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._waiting.append(str(path))

    def remove_now(self) -> None:
        for path in self._waiting:
            if self._backend.isfile(path):
                self._backend.remove(path)
        self._waiting.clear()
