"""Saving checkpoints so that the last good one is never lost."""

import os
import warnings
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ...registry import register
from ...utils.atomic import clear_leftovers, replacing
from .due_validation import VALIDATED, step_of
from .gradients import average_gradients

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
        self._recorded: int | None = None  # the last validation that the last file knows of
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
            for folder in {self.out_dir, runner.work_dir}:
                for path in clear_leftovers(folder):
                    runner.logger.info(f"{path} was never completed and is removed")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Saves the best weights, and the step's checkpoint again, with what came of validation.

        Args:
            runner: The runner of the training.
            metrics: What was measured.
        """
        hub, validated = runner.message_hub, step_of(runner)
        hub.update_info(VALIDATED, validated)
        super().after_val_epoch(runner, metrics)
        step = runner.epoch if self.by_epoch else runner.iter
        saved = os.path.basename(hub.runtime_info.get("last_ckpt", ""))
        if saved == self.filename_tmpl.format(step) and self._recorded != validated:
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save_checkpoint_with_step(runner, step, meta)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """As mmengine's, with a pointer that is whole, too; then the oldest file goes."""
        hub = runner.message_hub
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                oldest = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
                self.file_backend.remove(os.path.join(self.out_dir, oldest))
            self.keep_ckpt_ids.append(step)
            hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = os.path.join(self.out_dir, name)
        hub.update_info("last_ckpt", self.last_ckpt)
        self._recorded = hub.runtime_info.get(VALIDATED, 0)
        hub.update_info(VALIDATED, self._recorded)
        average_gradients(runner)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            with replacing(Path(runner.work_dir, "last_checkpoint")) as pointer:
                pointer.write_text(self.last_ckpt)
        self._remove_old()

    def _save_best_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._save_best_checkpoint(*args, **kwargs)
        self._remove_old()

    def _remove_old(self) -> None:
        """Removes what mmengine asked to remove, unless a new file has taken its name."""
        best = getattr(self, "best_ckpt_path_dict", {}).values()
        new = {self.last_ckpt, getattr(self, "best_ckpt_path", None), *best}
        if is_main_process() and isinstance(self.file_backend, _RemovesLater):
            self.file_backend.remove_now(new)


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

    def remove_now(self, but: set[str | None]) -> None:
        for path in self._waiting:
            if path not in but and self.isfile(path):
                self._backend.remove(path)
        self._waiting.clear()
