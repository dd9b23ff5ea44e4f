"""mmengine's runner with checkpoints that run no code and survive a crash."""

import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint_to_model

from tvit_seg.checkpoint_io import (
    CheckpointError,
    check_compatible,
    get_state_dict,
    plain,
    read_checkpoint,
    replacing,
)
from tvit_seg.compile import compile_as_configured
from tvit_seg.engine.checkpoint_hook import SafeCheckpointHook
from tvit_seg.engine.config_errors import naming_components
from tvit_seg.engine.finite_hook import FiniteHook
from tvit_seg.engine.gate_hook import GateResetHook
from tvit_seg.engine.seed_hook import StepSeedHook
from tvit_seg.registry import register


class PlainCheckpointHook(Hook):
    """Strips a checkpoint of everything that weights-only loading refuses.

    Runs last, after the hooks that add to the checkpoint. Log curves (``log_scalars``) are left
    out: after a resume the smoothed values of the log start anew. So are functions in the state
    of a parameter scheduler, which building the scheduler restores.
    """

    priority = "LOWEST"

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Changes the checkpoint in place.

        Args:
            runner: Not used.
            checkpoint: What will be saved.
        """
        hub = checkpoint["message_hub"]
        kept = {key: on for key, on in hub["resumed_keys"].items() if key in hub["runtime_info"]}
        checkpoint["message_hub"] = {**hub, "log_scalars": {}, "resumed_keys": kept}
        if "param_schedulers" in checkpoint:
            checkpoint["param_schedulers"] = _without_functions(checkpoint["param_schedulers"])
        checkpoint.update(plain(checkpoint))


def _without_functions(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _without_functions(val) for key, val in state.items() if not callable(val)}
    if isinstance(state, list):
        return [_without_functions(value) for value in state]
    return state


@contextmanager
def strict_loading() -> Iterator[None]:
    """Has mmengine's own loading functions read strictly, and local files only."""

    def load_from_strict(filename: str, map_location: Any = None) -> dict[str, Any]:
        return read_checkpoint(filename)

    schemes = CheckpointLoader._schemes
    CheckpointLoader._schemes = OrderedDict.fromkeys(schemes, load_from_strict)
    try:
        yield
    finally:
        CheckpointLoader._schemes = schemes


@register("RUNNERS")
class ThinkingRunner(Runner):
    """mmengine's ``Runner``; reads checkpoints strictly and writes them whole.

    A resumed run goes on as if it had not stopped, see :class:`StepSeedHook`.

    A ``CheckpointHook`` is replaced by :class:`SafeCheckpointHook`; a loss or weight that is not
    finite ends training. Takes the arguments of mmengine's ``Runner``.
    """

    _testing = False

    def register_hooks(self, default_hooks: Any = None, custom_hooks: Any = None) -> None:
        """Registers the config's hooks, and those that every training gets.

        Args:
            default_hooks: As in mmengine's ``Runner``.
            custom_hooks: As in mmengine's ``Runner``.
        """
        default_hooks = dict(default_hooks or {})
        saving = default_hooks.setdefault("checkpoint", dict(type="CheckpointHook", interval=1))
        if isinstance(saving, dict) and saving.get("type") == "CheckpointHook":
            default_hooks["checkpoint"] = {**saving, "type": SafeCheckpointHook}
        super().register_hooks(default_hooks, custom_hooks)
        self.register_hook(FiniteHook())
        self.register_hook(StepSeedHook())
        self.register_hook(GateResetHook())
        self.register_hook(PlainCheckpointHook())

    def _maybe_compile(self, target: str) -> None:
        """Compiles blocks: mmengine would compile a whole step, again for each number of images."""
        compile_as_configured(self.model, self.cfg.get("compile"))

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scales the learning rate with the number of images that a step of the optimizer sees.

        mmengine counts the images of all processes, but not that gradients may be accumulated over
        several batches.

        Args:
            optim_wrapper: Its learning rates are multiplied by images / ``base_batch_size``.
            auto_scale_lr: ``dict(enable=True, base_batch_size=...)``; None or ``enable=False``
                leaves the learning rate as it is.
        """
        if auto_scale_lr and auto_scale_lr.get("enable"):
            counts = getattr(optim_wrapper, "_accumulative_counts", 1)
            base = auto_scale_lr["base_batch_size"] / counts
            auto_scale_lr = {**auto_scale_lr, "base_batch_size": base}
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Continues a training run.

        Args:
            filename: A checkpoint with the state of the optimizer.
            *args: As in mmengine's ``Runner``.
            **kwargs: As in mmengine's ``Runner``.
        """
        self._resume = True  # hooks ask for it; mmengine sets it by the config only
        super().resume(filename, *args, **kwargs)
        sampler = self.train_dataloader.sampler
        if hasattr(sampler, "seed") and not self._randomness_cfg.get("diff_rank_seed", False):
            sampler.seed = self.seed  # built before the checkpoint's seed was known

    def test(self) -> dict[str, float]:
        """Tests the model; weights of other shapes, which training may start from, are refused."""
        self._testing = True
        self._maybe_compile("test_step")
        with naming_components(self.cfg):
            return super().test()

    def train(self) -> torch.nn.Module:
        """Trains the model, as in mmengine; dataset, optimizer and schedules are built here."""
        with naming_components(self.cfg):
            return super().train()

    def _init_model_weights(self) -> None:
        with strict_loading():  # of whatever an ``init_cfg`` names, in heads and necks too
            super()._init_model_weights()

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = "cpu",
        strict: bool = False,
        revise_keys: list = [(r"^module\.", "")],
    ) -> dict[str, Any]:
        """Loads weights into the model.

        Args:
            filename: A local file.
            map_location: Not used. Tensors are read to the CPU, from where the model and the
                optimizer copy them to their device.
            strict: Whether names must match exactly.
            revise_keys: Pairs of pattern and replacement for the names.

        Returns:
            The checkpoint, with the weights under ``state_dict``.

        Raises:
            CheckpointError: The file is damaged, holds more than weights, is of another model, or
                has no training state to resume from.
        """
        checkpoint = read_checkpoint(filename)
        weights = get_state_dict(checkpoint)
        rest = {k: v for k, v in checkpoint.items() if not isinstance(v, torch.Tensor)}
        checkpoint = {**rest, "state_dict": weights}
        if self._resume:
            _check_training_state(checkpoint, filename)
            # mmengine would run this text as a Python config.
            checkpoint["meta"].pop("config", None)

        model = self.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        for pattern, replacement in revise_keys:
            weights = {re.sub(pattern, replacement, name): value for name, value in weights.items()}
        check_compatible(model, weights, filename, shapes=self._testing)

        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        checkpoint = _load_checkpoint_to_model(model, checkpoint, strict, revise_keys=revise_keys)
        self._has_loaded = True
        self.logger.info(f"Load checkpoint from {filename}")
        return checkpoint

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Saves a checkpoint; until it is complete, an older file of that name stays.

        Args:
            out_dir: A local folder.
            filename: Name of the file.
            *args: As in mmengine's ``Runner``.
            **kwargs: As in mmengine's ``Runner``.

        Raises:
            ValueError: The folder is remote.
            OSError: The file cannot be written, for instance since the disk is full; older ones are
                as they were.
        """
        if "://" in str(out_dir):
            raise ValueError(f"checkpoints go to a local folder, not to {out_dir}")
        path = Path(out_dir) / filename
        try:
            with replacing(path) as temporary:
                super().save_checkpoint(str(out_dir), temporary.name, *args, **kwargs)
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "inline_container" not in str(error):
                raise  # not torch's writer
            raise OSError(
                f"checkpoint {path} cannot be written, {_free(path)}; earlier files are unharmed "
                f"({str(error).splitlines()[0]})"
            ) from error


def _free(path: Path) -> str:
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    return f"{shutil.disk_usage(folder).free / 2**20:.0f} MB are free in {folder}"


def _check_training_state(checkpoint: dict, path: str) -> None:
    absent = [key for key in ("meta", "message_hub", "optimizer") if key not in checkpoint]
    absent += [f"meta.{key}" for key in ("epoch", "iter") if key not in checkpoint.get("meta", {})]
    if absent:
        raise CheckpointError(
            f"cannot resume from {path}: it holds weights only (no {', '.join(absent)}); "
            "use load_from"
        )
