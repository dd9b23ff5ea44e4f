"""mmengine's runner with checkpoints that run no code and survive a crash."""

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import master_only
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmseg.engine import SegVisualizationHook
from mmseg.models import BaseSegmentor
from mmseg.registry import DATA_SAMPLERS, HOOKS
from torch import nn
from torch.utils.data import DataLoader

from ..datasets.corrupt import build_guarded, skips_corrupt
from ..errors import CheckpointError, ConfigError, TvitSegError
from ..models.compile import compile_as_configured
from ..models.segmentors import ThinkingEncoderDecoder
from ..models.segmentors.head_check import check_heads
from ..models.segmentors.losses import mend_losses
from ..models.segmentors.same_sizes import take_any_sizes
from ..registry import register
from ..utils.atomic import replacing
from ..utils.checks import check, did_you_mean
from ..utils.text import first_line
from ..weights.io import get_meta, get_state_dict, read_checkpoint
from ..weights.load import check_compatible, convert_named, strict_loading, thinks
from .config_check import building, naming_key
from .hooks.checkpoint import (
    PlainCheckpointHook,
    SafeCheckpointHook,
    checkpoint_folders,
    good_checkpoint,
)
from .hooks.exit_log import ExitLogHook
from .hooks.finite import FiniteHook
from .hooks.gate_reset import GateResetHook
from .hooks.pictures import PictureHook
from .hooks.progress import FirstStepHook, SkipCountHook
from .hooks.resume import (
    DueValidationHook,
    GradientHook,
    SeededDataset,
    StepSeedHook,
    TeacherHook,
    seeded_sampler,
)

_REVISE_KEYS = [(r"^module\.", "")]  # mmengine's default
_IMPROVED = {CheckpointHook: SafeCheckpointHook, SegVisualizationHook: PictureHook}
_OF_WORKERS = ("persistent_workers", "prefetch_factor", "multiprocessing_context")
_FILE_ONLY = (
    "\n---",  # the environment
    "Config:",
    "Distributed training is not used",
    "Hooks will be executed",
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    "The prefix is not set in metric class",
)
"""Beginnings of log records that are not shown on the screen."""


def _for_screen(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_FILE_ONLY)


def _build_dataset(cfg: dict) -> SeededDataset:
    return SeededDataset(build_guarded(cfg))


@register("RUNNERS")
class ThinkingRunner(Runner):
    """mmengine's ``Runner`` that reads checkpoints strictly and writes them atomically.

    A resumed run equals an uninterrupted one, see ``hooks/resume.py``. A
    ``CheckpointHook`` is replaced by :class:`SafeCheckpointHook`; a loss or weight that is not
    finite ends training. Takes the arguments of mmengine's ``Runner``.
    """

    _testing = False
    _initialized = False
    _resume: bool | str
    _load_from: str | None

    def __init__(self, *args: Any, **kwargs: Any):
        self.read_ahead: dict[str, dict[str, Any]] = {}
        """Content of checkpoints by path, so that none is read twice; loading one removes it."""
        super().__init__(*args, **kwargs)
        if skips_corrupt(self._val_dataloader) or skips_corrupt(self._test_dataloader):
            raise ConfigError("skip_corrupt is for training; evaluation reads every image")
        check_heads(self._bare_model)  # mmseg's own segmentors do not
        if isinstance(self.model, ThinkingEncoderDecoder):  # views of TTA are merged by logits
            self.model.test_cfg.setdefault("seg_logits", False)
        elif not isinstance(self._bare_model, ThinkingEncoderDecoder):  # which does it itself
            mend_losses(self._bare_model)
            if isinstance(self._bare_model, BaseSegmentor):
                take_any_sizes(self._bare_model)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger; dumps of config, environment and hooks go to its file only."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_for_screen)
        return logger

    def register_hooks(self, default_hooks: Any = None, custom_hooks: Any = None) -> None:
        """Register the config's hooks and those of every training."""
        default_hooks = dict(default_hooks or {})
        default_hooks.setdefault("checkpoint", dict(type="CheckpointHook", interval=1))
        super().register_hooks(default_hooks, custom_hooks)
        always = [FiniteHook, StepSeedHook, GateResetHook, TeacherHook, GradientHook, ExitLogHook]
        always += [SkipCountHook] if skips_corrupt(self._train_dataloader) else []
        for kind in (*always, FirstStepHook, PlainCheckpointHook, DueValidationHook):
            self.register_hook(kind())

    def register_hook(self, hook: Hook | dict, priority: Any = None) -> None:
        """Register a hook; ours take the place of mmengine's and mmseg's."""
        if isinstance(hook, dict):
            kind = hook.get("type")
            found = HOOKS.get(kind) if isinstance(kind, str) else kind
            hook = {**hook, "type": _IMPROVED.get(found, kind)}
        super().register_hook(hook, priority)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a dataloader with a :class:`SeededDataset` that detects corrupt images.

        Options of worker processes are dropped where ``num_workers=0``: a base file has them.
        """
        loader = dataloader
        if isinstance(loader, dict) and not loader.get("num_workers", 0):
            loader = {k: v for k, v in loader.items() if k not in _OF_WORKERS}
        if isinstance(loader, dict) and isinstance(loader.get("dataset"), dict):
            dataset = dict(type=_build_dataset, cfg=loader["dataset"])
            loader = {**loader, "dataset": dataset}
            sampler = loader.get("sampler")
            if isinstance(sampler, dict):
                kind = sampler.get("type")
                kind = DATA_SAMPLERS.get(kind) if isinstance(kind, str) else kind
                if isinstance(kind, type):  # else an error of mmengine's
                    loader["sampler"] = {**sampler, "type": seeded_sampler(kind)}
        return Runner.build_dataloader(loader, seed, diff_rank_seed)

    def _maybe_compile(self, target: str) -> None:
        """Compile blocks; mmengine would recompile the whole step for each batch size."""
        compile_as_configured(self.model, self.cfg.get("compile"))

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scale the learning rate as mmengine does, with gradients accumulated over batches."""
        if auto_scale_lr and auto_scale_lr.get("enable"):
            base = auto_scale_lr["base_batch_size"]
            base /= getattr(optim_wrapper, "_accumulative_counts", 1)
            auto_scale_lr = {**auto_scale_lr, "base_batch_size": base}
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def prepare_weights(self) -> None:
        """Initialise the weights and read the initial checkpoint, so that bad files fail early."""
        with building(self.cfg), naming_key(self.cfg):
            self._init_model_weights()
        self._find_latest()
        if self._load_from is not None:
            self.read_ahead[self._load_from] = self._read(self._load_from, _REVISE_KEYS)

    def _init_model_weights(self) -> None:
        if not self._initialized:
            with strict_loading():  # of whatever an ``init_cfg`` names, in heads and necks too
                super()._init_model_weights()
        self._initialized = True

    def _find_latest(self) -> None:
        """Set ``load_from`` to the latest good checkpoint in the work folder, if asked for.

        That is ``resume=True`` alone, or ``resume='auto'``, which starts from ``load_from`` if
        there is none.
        """
        asked = self._resume == "auto" or (self._resume and self._load_from is None)
        if not asked or self._has_loaded:
            return
        found = good_checkpoint(*checkpoint_folders(self.cfg, self.work_dir))
        self._resume = found is not None
        if found is None:
            folder = Path(self.work_dir)
            trained = [path.parent.name for path in folder.parent.glob("*/last_checkpoint")]
            near = did_you_mean(folder.name, trained)
            message = f"nothing to resume in {folder}: training starts from the beginning{near}"
            self.logger.warning(message)
        else:
            self._load_from, content = str(found[0]), found[1]
            self.read_ahead[self._load_from] = content

    def train(self) -> nn.Module:
        """Train the model; the dataset, the optimizer and the schedules are built here."""
        with building(self.cfg):
            return super().train()

    def test(self) -> dict[str, float]:
        """Test the model; weights of other shapes, which training may start from, are rejected."""
        self._testing = True
        self._maybe_compile("test_step")
        with building(self.cfg):
            return super().test()

    def load_or_resume(self) -> None:
        """Load the config's checkpoint; ``resume=True`` alone finds the latest good one."""
        self._find_latest()
        super().load_or_resume()

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Continue a training run from a checkpoint with the state of the optimizer."""
        self._resume = True  # hooks ask for it; mmengine sets it by the config only
        sampler = self.train_dataloader.sampler  # built outside of what is caught below
        try:
            super().resume(filename, *args, **kwargs)
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # of another training
            if isinstance(error, TvitSegError):
                raise
            raise CheckpointError(
                f"cannot resume from {filename}: its training state does not fit "
                f"({type(error).__name__}: {first_line(error)})"
            ) from error
        self._check_progress(filename)
        if hasattr(sampler, "seed") and not self._randomness_cfg.get("diff_rank_seed", False):
            sampler.seed = self.seed  # built before the checkpoint's seed was known
            iterator = getattr(self.train_loop, "dataloader_iterator", None)
            if isinstance(sampler, InfiniteSampler) and iterator is not None:
                # OpenMMLab's loop has already started to iterate with the old seed
                sampler.indices = sampler._indices_of_rank()
                self.train_loop.dataloader_iterator = type(iterator)(self.train_loop.dataloader)

    def _check_progress(self, filename: str) -> None:
        unit = "epoch" if isinstance(self.train_loop, EpochBasedTrainLoop) else "iter"
        done, most = getattr(self.train_loop, unit), getattr(self.train_loop, f"max_{unit}s")
        if done > most:
            raise CheckpointError(
                f"cannot resume from {filename}: meta.{unit}={done} is beyond the end of this "
                f"training, train_cfg.max_{unit}s={most}"
            )

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = "cpu",  # others are ignored
        strict: bool = False,
        revise_keys: list = _REVISE_KEYS,
    ) -> dict[str, Any]:
        """Load weights into the model; return the checkpoint with these under ``state_dict``.

        Raises:
            CheckpointError: The file is damaged, holds more than weights, is of another model, or
                has no training state to resume from.
        """
        checkpoint = self._read(filename, revise_keys)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        model = self._bare_model
        checkpoint = _load_checkpoint_to_model(model, checkpoint, strict, revise_keys=revise_keys)
        self._has_loaded = True
        self.logger.info(f"Load checkpoint from {filename}")
        return checkpoint

    @property
    def _bare_model(self) -> nn.Module:
        model = self.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        return model

    def _read(self, filename: str, revise_keys: list) -> dict[str, Any]:
        """Return a checkpoint that fits the model; raises as :meth:`load_checkpoint`."""
        checkpoint = self.read_ahead.pop(filename, None) or read_checkpoint(filename)
        if self._resume:
            if "optimizer" not in checkpoint:
                what = "it holds weights only (no optimizer); use load_from"
                raise CheckpointError(f"cannot resume from {filename}: {what}")
            get_meta(checkpoint).pop("config", None)  # mmengine would run this text as Python
        weights = get_state_dict(checkpoint)
        rest = {k: v for k, v in checkpoint.items() if not isinstance(v, torch.Tensor)}
        checkpoint = {**rest, "state_dict": weights}
        for pattern, replacement in revise_keys:
            weights = {re.sub(pattern, replacement, name): value for name, value in weights.items()}
        model = self._bare_model
        if self._resume or self._testing or not thinks(model):
            check_compatible(model, weights, filename, shapes=self._testing)
        if thinks(model):
            converted = convert_named(model, {**rest, "state_dict": weights}, filename)
            checkpoint["state_dict"] = converted
            self.logger.info(f"{filename}: {converted.report}")
        return checkpoint

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint to a local folder; until it is complete, an older file stays."""
        check("://" not in str(out_dir), "out_dir of checkpoints", out_dir, "a local folder")
        path = Path(out_dir) / filename
        try:
            with replacing(path) as temporary:
                super().save_checkpoint(str(out_dir), temporary.name, *args, **kwargs)
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "inline_container" not in str(error):
                raise  # not torch's writer
            folder = path.parent if path.parent.is_dir() else self.work_dir
            free = shutil.disk_usage(folder).free / 2**20
            raise OSError(
                f"checkpoint {path} cannot be written, {free:.0f} MB are free in {folder}; "
                f"earlier files are unharmed ({first_line(error)})"
            ) from error
