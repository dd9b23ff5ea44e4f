"""Saving checkpoints so that the last good one is never lost, and finding it again."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from ...errors import CheckpointError, ConfigError
from ...registry import register
from ...utils.atomic import clear_leftovers, replacing
from ...weights.io import plain, read_checkpoint
from ...weights.publish import record_backbone
from .resume import VALIDATED, average_gradients, bare_model, step_of

_LEAST = 2  # checkpoints that are kept, in case a file is damaged


@register("HOOKS")
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` that removes a file only once its replacement is complete.

    mmengine removes the oldest checkpoint, and the best one so far, before it writes the next. At
    least two checkpoints are kept. The checkpoint that training resumed from lists files to
    remove; those outside of this training's own folder are kept.

    :class:`ThinkingRunner` replaces ``CheckpointHook``, whose arguments it takes, by this hook.
    """

    max_keep_ckpts: int
    file_backend: Any = None  # until training starts

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._recorded: int | None = None  # the last validation that the last checkpoint records
        if 0 < self.max_keep_ckpts < _LEAST:
            kept = f"max_keep_ckpts={self.max_keep_ckpts}: {_LEAST} checkpoints are kept"
            warnings.warn(f"{kept}, in case a file is damaged", stacklevel=2)
            self.max_keep_ckpts = _LEAST

    def _init_rule(self, *args: Any) -> None:
        try:
            super()._init_rule(*args)
        except ValueError as error:
            raise ConfigError(
                f"save_best={self.save_best!r} must come with a rule, which mmengine cannot infer: "
                "write rule='greater' beside it, or rule='less' if lower is better"
            ) from error

    def before_train(self, runner: Runner) -> None:
        """Find the files to keep, delay removals, and clear leftovers of killed trainings."""
        super().before_train(runner)
        self.file_backend = _RemovesLater(self.file_backend, self.out_dir)
        if is_main_process():
            for folder in {self.out_dir, runner.work_dir}:
                for path in clear_leftovers(folder):
                    runner.logger.info(f"{path} was incomplete and is removed")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Save the best weights, and the step's checkpoint again with the result of validation."""
        hub, validated = runner.message_hub, step_of(runner)
        hub.update_info(VALIDATED, validated)
        super().after_val_epoch(runner, metrics)
        step = runner.epoch if self.by_epoch else runner.iter
        saved = os.path.basename(hub.runtime_info.get("last_ckpt", ""))
        if saved == self.filename_tmpl.format(step) and self._recorded != validated:
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save_checkpoint_with_step(runner, step, meta)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Save as mmengine does, with an atomic pointer; then remove the oldest file."""
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
        """Remove what mmengine asked to remove, unless a new file has taken its name."""
        best = getattr(self, "best_ckpt_path_dict", {}).values()
        new = {self.last_ckpt, getattr(self, "best_ckpt_path", None), *best}
        if is_main_process() and isinstance(self.file_backend, _RemovesLater):
            self.file_backend.remove_now(new)


class _RemovesLater:
    """A file backend that notes which checkpoints of one folder to remove."""

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


class PlainCheckpointHook(Hook):
    """Strips a checkpoint of everything that weights-only loading rejects.

    Log curves, whose smoothing thus restarts after a resume, and functions in the state of
    schedulers are left out. The backbone's record, with the width of heads, is added.
    """

    priority = "LOWEST"  # after the hooks that add to the checkpoint

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Change the checkpoint in place."""
        hub = checkpoint["message_hub"]
        kept = {key: on for key, on in hub["resumed_keys"].items() if key in hub["runtime_info"]}
        checkpoint["message_hub"] = {**hub, "log_scalars": {}, "resumed_keys": kept}
        if "param_schedulers" in checkpoint:
            checkpoint["param_schedulers"] = _without_functions(checkpoint["param_schedulers"])
        checkpoint["meta"]["backbone"] = record_backbone(bare_model(runner))
        checkpoint.update(plain(checkpoint))


def _without_functions(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _without_functions(val) for key, val in state.items() if not callable(val)}
    if isinstance(state, list):
        return [_without_functions(value) for value in state]
    return state


def checkpoint_folders(cfg: Config | Mapping[str, Any], work_dir: str) -> list[Path]:
    """List the folders with checkpoints: the work folder, and the hook's ``out_dir``."""
    hook = (cfg.get("default_hooks") or {}).get("checkpoint")
    out_dir = hook.get("out_dir") if isinstance(hook, Mapping) else None
    name = Path(os.path.abspath(work_dir)).name  # mmengine creates a folder of that name inside
    return [Path(work_dir), *([Path(out_dir, name)] if out_dir else [])]


def latest_checkpoint(*folders: str | Path) -> Path | None:
    """Return the first of :func:`find_checkpoints`, or ``None``."""
    return next(iter(find_checkpoints(*folders)), None)


def find_checkpoints(work_dir: str | Path, *others: str | Path) -> list[Path]:
    """Find the checkpoints to resume from, latest first.

    Returns:
        The file that ``last_checkpoint`` names, unless that is damaged or the folder was moved;
        then every ``iter_*.pth`` and ``epoch_*.pth`` next to it, or else in the folders: the kind
        that was written last first, and the highest number first.
    """
    pointer = Path(work_dir, "last_checkpoint")
    text = pointer.read_bytes().decode(errors="replace").strip() if pointer.is_file() else ""
    named = [Path(text)] if os.path.isfile(text) else []  # False for whatever is no path at all
    folders = [named[0].parent] if named else map(Path, (work_dir, *others))
    saved = [
        path
        for folder in folders
        for kind in ("iter", "epoch")
        for path in folder.glob(f"{kind}_*.pth")
        if path.exists()
    ]
    written: dict[str, float] = {}
    for path in saved:
        kind = path.name.partition("_")[0]
        written[kind] = max(written.get(kind, 0), path.stat().st_mtime)

    def order(path: Path) -> tuple[float, int, float]:  # copying a folder may change file times
        kind, _, number = path.stem.partition("_")
        return written[kind], int(number) if number.isdecimal() else -1, path.stat().st_mtime

    return named + [path for path in sorted(saved, key=order, reverse=True) if path not in named]


def good_checkpoint(*folders: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """Read the first undamaged one of :func:`find_checkpoints`; ``None`` if there is none at all.

    Raises:
        CheckpointError: There are checkpoints, but all are damaged.
    """
    found, reasons = find_checkpoints(*folders), []
    for path in found:
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError as error:
            reasons.append(str(error))
            continue
        if reasons and is_main_process():
            lost = "\n  ".join(reasons)
            warnings.warn(f"{path} is the latest good checkpoint, since\n  {lost}", stacklevel=2)
        return path, checkpoint
    if found:
        raise CheckpointError(
            f"none of {len(found)} checkpoints in {found[0].parent} can be read: {reasons[0]}"
        )
    return None
