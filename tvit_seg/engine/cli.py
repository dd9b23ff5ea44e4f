"""Command line, config, runner and one-line errors of the tools."""

import argparse
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from ..errors import ConfigError, TvitSegError
from ..registry import RUNNERS
from ..utils.checks import check, did_you_mean
from ..utils.resources import resources
from ..utils.text import first_line, some
from .cli_weights import add_trust_argument
from .config_check import building, check_config, check_ignore_index
from .distributed import prepare_distributed
from .hooks.checkpoint import checkpoint_folders, latest_checkpoint

_READ = {
    *signature(Runner.__init__).parameters,
    *("runner_type", "compile", "find_unused_parameters", "sync_bn", "model_wrapper_cfg"),
    *("tta_model", "tta_pipeline", "auto_scale_lr", "dist_cfg", "custom_imports", "hooks"),
}
"""Top-level settings of a config that runner and tools read."""


class ConfigOptions(DictAction):
    """mmengine's ``--cfg-options``; anything but ``key=value`` is a command line error."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, ValueError) as error:  # of brackets, or without "="
            raise argparse.ArgumentError(self, f"{values} must be key=value: {error}") from error


def add_block_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--block`` of the tools that draw intervals over images."""
    parser.add_argument(
        "--block",
        type=int,
        default=1,
        metavar="N",
        help="neighbouring images that the bootstrap draws together, for frames of videos",
    )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing have in common."""
    parser.add_argument(
        "--work-dir", help="folder for logs and checkpoints; default ./work_dirs/<config name>"
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=ConfigOptions,
        default={},
        metavar="KEY=VALUE",
        help="settings that override the config, e.g. train_dataloader.batch_size=4 key=[a,b]",
    )
    add_trust_argument(parser)
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    # Older launchers pass this argument instead of setting the variable.
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, default=0, help="set by launchers"
    )


def load_config(args: argparse.Namespace) -> Config:
    """Read the file ``args.config`` and apply the arguments of :func:`add_common_arguments`.

    Raises:
        ConfigError: The file does not exist, cannot be read, or does not fit an option.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = (
        args.work_dir or cfg.get("work_dir") or str(Path("work_dirs", Path(args.config).stem))
    )
    cfg.setdefault("runner_type", "ThinkingRunner")
    return cfg


def find_config(path: str | Path) -> Path:
    """Find a config file, or the shipped config of that name.

    Raises:
        ConfigError: There is no such file; the message has the nearest names.
    """
    if Path(path).is_file():
        return Path(path)
    shipped = {file.stem: file for file in resources("configs").glob("*/*.py")}
    if (name := Path(path).name.removesuffix(".py")) in shipped and str(path) in (
        name,
        f"{name}.py",
    ):
        return shipped[name]
    near = get_close_matches(name, shipped, n=3, cutoff=0)
    raise ConfigError(
        f"config {path} does not exist; shipped ones are named e.g. {', '.join(near)}"
    )


def read_config(path: str | Path, options: dict[str, Any]) -> Config:
    """Read a config file and apply ``--cfg-options``; raises as :func:`load_config`."""
    path = find_config(path)
    try:
        cfg = Config.fromfile(path, lazy_import=_lazy_import(path))
    except Exception as error:  # a config is a program, which fails in any way
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ConfigError(f"config {path} cannot be read: {reason}{_hint(error)}") from error
    for option in options:
        for reason in _without_effect(option, cfg):
            warnings.warn(f"--cfg-options {option}: {reason}", stacklevel=2)
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, AssertionError) as error:  # a path through something not a dict
        raise ConfigError(f"--cfg-options do not fit {path}: {error}") from error
    return cfg


def _without_effect(option: str, cfg: Config) -> Iterator[str]:
    """Reason why an option does nothing."""
    name, *inner = option.split(".")
    if inner and name not in cfg:
        yield f"the config has no {name!r}{did_you_mean(name, cfg)}"
    elif not inner and name not in _READ:
        places = list(_places(cfg.to_dict(), name))
        found = f"; set {some(places, most=3)}" if places else did_you_mean(name, _READ)
        yield f"nothing reads {name!r} any more, once the config's files are read{found}"


def _places(config: Any, name: str, path: str = "") -> Iterator[str]:
    """Dotted names of the settings called ``name`` below the top level of a config."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if path and key == name:
                yield f"{path}.{key}"
            yield from _places(value, name, f"{path}.{key}" if path else str(key))


def _lazy_import(path: str | Path) -> bool | None:
    """False for a file with ``_base_``; mmengine goes by an ``import`` line above it."""
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    plain = re.search(r"^_base_\s*=", text, re.MULTILINE) and "read_base" not in text
    return False if plain else None


def _hint(error: Exception) -> str:
    if isinstance(error, RuntimeError):  # of mmengine's, some without a word
        return (
            "; mmengine reads a file that imports something and has no _base_ in another way, in "
            "which imported names are not called: import inside of a _base_ config, or write the "
            "value itself"
        )
    return ""


def check_device(device: str) -> None:
    """Raise ConfigError if torch does not know the device or the machine lacks it."""
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ConfigError(f"--device {device}: {first_line(error)}") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"--device {device}: this machine has no CUDA device")


def build_runner(cfg: Config, checkpoint: dict[str, Any] | None = None) -> Runner:
    """Start the communication between processes and build the runner.

    Args:
        checkpoint: Content of ``cfg.load_from`` if it has been read already.
    """
    check_config(cfg, ("model", "work_dir"))
    prepare_distributed(cfg)
    with building(cfg):
        runner = RUNNERS.build(cfg)
        check_ignore_index(cfg)
    if checkpoint is not None:
        runner.read_ahead = {cfg.load_from: checkpoint}
    return runner


def set_resume(cfg: Config, resume: str | None) -> None:
    """Set ``cfg.resume`` and ``cfg.load_from``.

    Args:
        resume: A checkpoint; ``"auto"`` for the latest good one in the work folder, or a start from
            ``load_from`` if there is none; or ``None`` for the config's setting.
    """
    if resume == "auto":
        cfg.resume = resume
    elif resume is not None:
        cfg.resume, cfg.load_from = True, resume


def require_start(cfg: Config) -> None:
    """Raise ConfigError if token pruning without a teacher starts from an untrained model."""
    backbone = cfg.model.get("backbone")
    if not isinstance(backbone, Mapping):  # an error of building
        return
    named: list[Any] = [cfg.get("load_from")]
    if cfg.get("resume"):
        named.append(latest_checkpoint(*checkpoint_folders(cfg, cfg.work_dir)))
    named += [part.get(key) for part in (cfg.model, backbone) for key in ("pretrained", "init_cfg")]
    if backbone.get("pruning") and not any(named):
        raise ConfigError(
            "token pruning starts from a trained model: name its checkpoint, for instance by "
            "--cfg-options load_from=PATH"
        )


def use_amp(cfg: Config) -> None:
    """Enable mixed precision: float16 with loss scaling on an accelerator, else bfloat16."""
    kind = cfg.optim_wrapper.get("type", "OptimWrapper")
    if kind in ("AmpOptimWrapper", "AutocastOptimWrapper"):
        return
    check(kind == "OptimWrapper", "optim_wrapper.type", kind, "'OptimWrapper' for --amp")
    if torch.cuda.is_available():
        cfg.optim_wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")
    else:
        cfg.optim_wrapper.type = "AutocastOptimWrapper"


@contextmanager
def friendly_errors() -> Iterator[None]:
    """Exit with a one-line message for errors that users can fix, unless ``TVIT_DEBUG=1``."""
    try:
        yield
    except (TvitSegError, OSError) as error:
        if os.environ.get("TVIT_DEBUG") == "1":
            raise
        text = str(error)
        if text.startswith("Caught "):  # in a DataLoader worker, whose traceback is part of it
            text = text.rpartition(f"{type(error).__name__}: ")[2].strip()
        raise SystemExit(f"error: {text}") from None


def choose_data(cfg: Config, split: str) -> dict:
    """Choose the dataloader to sweep over; training images use the test pipeline.

    Raises:
        ConfigError: If the config has no such data, or wraps its training data.
    """
    for name in {f"{split}_dataloader", "test_dataloader"}:
        if not cfg.get(name):
            raise ConfigError(f"split {split}: the config has no {name}")
    if split != "train":
        return cfg[f"{split}_dataloader"]
    loader, training = deepcopy(cfg.test_dataloader), cfg.train_dataloader.dataset
    kind = loader.dataset.type
    check(training.type == kind, "type of the training data", training.type, f"{kind}, as in tests")
    for name in ("data_root", "data_prefix", "ann_file", "split"):
        loader.dataset.pop(name, None)
        if name in training:
            loader.dataset[name] = training[name]
    return loader
