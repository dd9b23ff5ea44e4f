"""mmengine's runner with checkpoints that run no code and survive a crash."""

import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import master_only
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner, TestLoop, ValLoop
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmseg.registry import DATA_SAMPLERS
from torch import nn
from torch.utils.data import DataLoader

from ..datasets.corrupt import build_guarded, skips_corrupt
from ..errors import CheckpointError
from ..models.compile import compile_as_configured
from ..models.segmentors.head_check import check_heads
from ..registry import register
from ..utils.atomic import replacing
from ..utils.text import first_line
from ..weights.io import get_state_dict, read_checkpoint
from ..weights.load import check_compatible, strict_loading
from .cli import checkpoint_folders, good_checkpoint
from .component_errors import Components
from .endless import require_end
from .hooks.checkpoint import SafeCheckpointHook
from .hooks.due_validation import DueValidationHook
from .hooks.finite import FiniteHook
from .hooks.gate_reset import GateResetHook
from .hooks.gradients import GradientHook
from .hooks.placed import SeededDataset, numbering
from .hooks.plain import PlainCheckpointHook
from .hooks.seed import StepSeedHook
from .hooks.skip_corrupt import SkipCountHook
from .hooks.teacher import TeacherHook
from .training_state import check_resumed, check_training_state

_REVISE_KEYS = [(r"^module\.", "")]  # mmengine's default


def _build_dataset(cfg: dict) -> SeededDataset:
    return SeededDataset(build_guarded(cfg))


@register("RUNNERS")
class ThinkingRunner(Runner):
    """mmengine's ``Runner``; reads checkpoints strictly and writes them whole.

    A resumed run goes on as if it had not stopped, see :class:`StepSeedHook`.

    A ``CheckpointHook`` is replaced by :class:`SafeCheckpointHook`; a loss or weight that is not
    finite ends training. Takes the arguments of mmengine's ``Runner``.
    """

    _testing = False
    _initialized = False
    _read_ahead: dict[str, dict] = {}
    _at_work = "train_iter"
    components: Components | None = None
    """What was built before, if :func:`~tvit_seg.engine.cli.build_runner` did so."""

    def __init__(self, *args: Any, **kwargs: Any):
        self._hooks_called: set[str] = set()
        super().__init__(*args, **kwargs)
        if skips_corrupt(self._val_dataloader) or skips_corrupt(self._test_dataloader):
            raise ValueError("skip_corrupt is for training; evaluation sees every image")
        check_heads(self._bare_model)  # mmseg's own segmentors do not

    def register_hooks(self, default_hooks: Any = None, custom_hooks: Any = None) -> None:
        """Registers the config's hooks, and those that every training gets.

        Args:
            default_hooks: As in mmengine's ``Runner``.
            custom_hooks: As in mmengine's ``Runner``.
        """
        default_hooks = dict(default_hooks or {})
        saving = default_hooks.setdefault("checkpoint", dict(type="CheckpointHook", interval=1))
        plain_hook = ("CheckpointHook", "mmengine.CheckpointHook", CheckpointHook)
        if isinstance(saving, dict) and saving.get("type") in plain_hook:
            default_hooks["checkpoint"] = {**saving, "type": SafeCheckpointHook}
        super().register_hooks(default_hooks, custom_hooks)
        self.register_hook(FiniteHook())
        self.register_hook(StepSeedHook())
        self.register_hook(GateResetHook())
        self.register_hook(TeacherHook())
        self.register_hook(GradientHook())
        if skips_corrupt(self._train_dataloader):
            self.register_hook(SkipCountHook())
        self.register_hook(PlainCheckpointHook())
        self.register_hook(DueValidationHook())

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Builds a dataloader whose dataset names corrupt images, or passes them over.

        What is drawn for a sample depends on the seed, the process, the epoch, and the sample's
        place in it, see :class:`SeededDataset`.

        Args:
            dataloader: As in mmengine's ``Runner``; its ``dataset`` may have ``skip_corrupt=True``.
            seed: As in mmengine's ``Runner``.
            diff_rank_seed: As in mmengine's ``Runner``.
        """
        if isinstance(dataloader, dict) and isinstance(dataloader.get("dataset"), dict):
            dataset = dict(type=_build_dataset, cfg=dataloader["dataset"])
            dataloader = {**dataloader, "dataset": dataset}
            sampler = dataloader.get("sampler")
            if isinstance(sampler, dict):
                kind = sampler.get("type")
                kind = DATA_SAMPLERS.get(kind) if isinstance(kind, str) else kind
                if isinstance(kind, type):  # mmengine names what is not registered
                    dataloader["sampler"] = {**sampler, "type": numbering(kind)}
        return Runner.build_dataloader(dataloader, seed, diff_rank_seed)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As in mmengine; raises ConfigError if an epoch would not end.

        Args:
            loop: As in mmengine.
        """
        loop = super().build_train_loop(loop)
        return require_end(loop, "train") if isinstance(loop, EpochBasedTrainLoop) else loop

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As in mmengine; raises ConfigError if it would not end.

        Args:
            loop: As in mmengine.
        """
        loop = {"type": ValLoop, **loop} if isinstance(loop, dict) else loop  # has errors name it
        return require_end(super().build_val_loop(loop), "val")

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As in mmengine; raises ConfigError if it would not end.

        Args:
            loop: As in mmengine.
        """
        loop = {"type": TestLoop, **loop} if isinstance(loop, dict) else loop  # has errors name it
        return require_end(super().build_test_loop(loop), "test")

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

    def load_or_resume(self) -> None:
        """Loads what the config names; ``resume=True`` alone finds the latest good checkpoint.

        Raises:
            CheckpointError: All checkpoints in the work directory are damaged.
        """
        if self._resume and self._load_from is None and not self._has_loaded:
            latest = good_checkpoint(*checkpoint_folders(self.cfg, self.work_dir))
            if latest is None:  # mmengine would look again, and take an empty name for one
                self.logger.info(f"nothing to resume in {self.work_dir}")
                return
            self._load_from = str(latest)
        super().load_or_resume()

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Continues a training run.

        Args:
            filename: A checkpoint with the state of the optimizer.
            *args: As in mmengine's ``Runner``.
            **kwargs: As in mmengine's ``Runner``.

        Raises:
            CheckpointError: The file cannot be read or has no such state, or it does not fit.
        """
        self._resume = True  # hooks ask for it; mmengine sets it by the config only
        sampler = self.train_dataloader.sampler  # built outside of what is caught below
        try:
            super().resume(filename, *args, **kwargs)
            check_resumed(self, filename)
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # of a crafted state
            if isinstance(error, CheckpointError):
                raise
            cause = f"{type(error).__name__}: {first_line(error)}"
            raise CheckpointError(
                f"cannot resume from {filename}: its training state does not fit ({cause})"
            ) from error
        if hasattr(sampler, "seed") and not self._randomness_cfg.get("diff_rank_seed", False):
            sampler.seed = self.seed  # built before the checkpoint's seed was known
            iterator = getattr(self.train_loop, "dataloader_iterator", None)
            if isinstance(sampler, InfiniteSampler) and iterator is not None:
                # OpenMMLab's loop has begun to draw, with the other seed
                sampler.indices = sampler._indices_of_rank()
                self.train_loop.dataloader_iterator = type(iterator)(self.train_loop.dataloader)

    def test(self) -> dict[str, float]:
        """Tests the model; weights of other shapes, which training may start from, are refused."""
        self._testing = True
        self._maybe_compile("test_step")
        with self._naming():
            return super().test()

    def train(self) -> torch.nn.Module:
        """Trains the model, as in mmengine; dataset, optimizer and schedules are built here."""
        with self._naming():
            return super().train()

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Calls the hooks, as in mmengine.

        Args:
            fn_name: Name of their method.
            **kwargs: Its arguments.
        """
        self._at_work = next(
            (phase for phase in ("train_iter", "val", "test") if phase in fn_name), self._at_work
        )
        super().call_hook(fn_name, **kwargs)
        self._hooks_called.add(fn_name)

    def _naming(self) -> AbstractContextManager[None]:
        """Errors name components until the first training step, and the first validation, is done.

        What comes later is not the config's fault, and keeps its traceback.
        """
        components = self.components or Components(self.cfg)
        return components.naming(lambda: f"after_{self._at_work}" not in self._hooks_called)

    def prepare_weights(self) -> None:
        """Initialises the weights and reads what training starts from.

        :meth:`train` would do so, but after other work; bad files shall end here. They are not read
        again.

        Raises:
            FileNotFoundError: A file that the config names does not exist.
            CheckpointError: It cannot be used, see :meth:`load_checkpoint`.
        """
        with self._naming():
            self._init_model_weights()
        if self._load_from is not None:
            self._read_ahead = {self._load_from: self._read(self._load_from)}

    def _init_model_weights(self) -> None:
        if self._initialized:
            return
        with strict_loading():  # of whatever an ``init_cfg`` names, in heads and necks too
            super()._init_model_weights()
        self._initialized = True

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = "cpu",
        strict: bool = False,
        revise_keys: list = _REVISE_KEYS,
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
        checkpoint = self._read_ahead.pop(filename, None) or self._read(filename, revise_keys)
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

    def _read(self, filename: str, revise_keys: list = _REVISE_KEYS) -> dict[str, Any]:
        """A checkpoint that fits the model; raises as :meth:`load_checkpoint`."""
        checkpoint = read_checkpoint(filename)
        weights = get_state_dict(checkpoint)
        rest = {k: v for k, v in checkpoint.items() if not isinstance(v, torch.Tensor)}
        checkpoint = {**rest, "state_dict": weights}
        if self._resume:
            check_training_state(checkpoint, filename)
            # mmengine would run this text as a Python config.
            checkpoint["meta"].pop("config", None)
        for pattern, replacement in revise_keys:
            weights = {re.sub(pattern, replacement, name): value for name, value in weights.items()}
        check_compatible(self._bare_model, weights, filename, shapes=self._testing)
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
                f"({first_line(error)})"
            ) from error


def _free(path: Path) -> str:
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    return f"{shutil.disk_usage(folder).free / 2**20:.0f} MB are free in {folder}"
