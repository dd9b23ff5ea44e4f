"""Saving checkpoints so that the last good one is never lost."""

import os
import warnings
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from tvit_seg.atomic import clear_leftovers
from tvit_seg.registry import register

_LEAST = 2


@register("HOOKS")
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, but a file goes only when the one in its place is complete.

    mmengine removes the oldest checkpoint, and the best one so far, before it writes the next. At
    least two checkpoints are kept. Which ones to remove is read from the checkpoint that training
    resumed from: outside of this training's own folder nothing is removed, whatever it names.

    :class:`ThinkingRunner` puts this hook in the place of ``CheckpointHook``. Takes the same
    arguments.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if 0 < self.max_keep_ckpts < _LEAST:
            warnings.warn(
                f"max_keep_ckpts={self.max_keep_ckpts}: {_LEAST} checkpoints are kept, in case a "
                "file is damaged",
                stacklevel=2,
            )
            self.max_keep_ckpts = _LEAST

    def before_train(self, runner: Runner) -> None:
        """Finds what to keep; removing waits from here on. Clears what killed trainings left.

        Args:
            runner: The runner of the training.
        """
        super().before_train(runner)
        self.file_backend = _RemovesLater(self.file_backend, self.out_dir)
        if is_main_process():
            for path in clear_leftovers(self.out_dir):
                runner.logger.info(f"{path} was never completed and is removed")

    def _save_checkpoint_with_step(self, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint_with_step(*args, **kwargs)
        self.file_backend.remove_now()

    def _save_best_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._save_best_checkpoint(*args, **kwargs)
        self.file_backend.remove_now()


class _RemovesLater:
    """A file backend that only notes what to remove: checkpoints in one folder."""

    def __init__(self, backend: Any, folder: str):
        self._backend = backend
        self._folder = os.path.realpath(folder)
        self._waiting: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def isfile(self, path: str) -> bool:
        own = os.path.realpath(os.path.dirname(path)) == self._folder and path.endswith(".pth")
        return own and self._backend.isfile(path)

    def isdir(self, path: str) -> bool:
        return False  # mmengine would remove it; checkpoints are files

    def remove(self, path: str) -> None:
        self._waiting.append(path)

    def remove_now(self) -> None:
        for path in self._waiting:
            if self.isfile(path):
                self._backend.remove(path)
        self._waiting.clear()
