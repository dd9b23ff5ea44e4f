"""What tools/train.py and tools/test.py share: command line, config, runner, errors."""

import argparse
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from ..errors import CheckpointError
from ..registry import RUNNERS
from ..utils.text import first_line
from ..weights.io import read_checkpoint
from .component_errors import Components
from .config_errors import check_config, says_what
from .distributed import prepare_distributed
from .weights_arguments import add_trust_argument

_PROBE = 2**16  # bytes that a work folder must have room for, at least


class ConfigOptions(DictAction):
    """mmengine's ``--cfg-options`` with an error message for what is not ``key=value``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        for value in values:
            if not value.partition("=")[0] or "=" not in value:
                raise argparse.ArgumentError(self, f"{value!r} is not of the form key=value")
            if value.count("(") != value.count(")") or value.count("[") != value.count("]"):
                raise argparse.ArgumentError(self, f"unbalanced brackets in {value!r}")
        super().__call__(parser, namespace, values, option_string)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that training and testing have in common.

    Args:
        parser: Already has its positional arguments.
    """
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
    """Reads the config file and applies the common arguments.

    Args:
        args: Has ``config`` and what :func:`add_common_arguments` added.

    Returns:
        The config with ``launcher``, ``work_dir`` and ``runner_type`` set.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The config file cannot be read, or an option does not fit it.
        OSError: The work directory cannot be written.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = (
        args.work_dir or cfg.get("work_dir") or str(Path("work_dirs", Path(args.config).stem))
    )
    cfg.setdefault("runner_type", "ThinkingRunner")
    if is_first_process():
        require_writable(cfg.work_dir)
    return cfg


def read_config(path: str | Path, options: dict[str, Any]) -> Config:
    """Reads a config file and applies ``--cfg-options``; raises as :func:`load_config`."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"config {path} does not exist")
    try:
        cfg = Config.fromfile(path)
    except (SyntaxError, OSError) as error:  # an OSError is about the file type or a base file
        raise ValueError(f"config {path} cannot be read: {error}") from error
    for option in options:
        name = option.split(".")[0]
        if name not in cfg and "." in option:
            warnings.warn(f"--cfg-options {option}: the config has no {name!r}", stacklevel=2)
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, AssertionError) as error:  # a path through something not a dict
        raise ValueError(f"--cfg-options do not fit {path}: {error}") from error
    return cfg


def check_device(device: str) -> None:
    """Raises ValueError if torch does not know the device, or this machine does not have it."""
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"--device {device}: {first_line(error)}") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: this machine has no CUDA device")


def build_runner(cfg: Config) -> Runner:
    """Starts the processes' communication and builds the runner.

    Args:
        cfg: From :func:`load_config`.

    Raises:
        ConfigError: If a component cannot be built, or a number is absurd.
    """
    check_config(cfg, ("model", "work_dir"))
    prepare_distributed(cfg)
    components = Components(cfg)
    with components.naming():
        runner = RUNNERS.build(cfg)
    runner.components = components
    return runner


def require_writable(folder: str | Path) -> None:
    """Tries to write where logs and checkpoints will go, so that hours later there is no surprise.

    Args:
        folder: It, or what there is of it.

    Raises:
        OSError: That is not possible; the message names the folder.
    """
    path = Path(folder).absolute()
    there = next(part for part in (path, *path.parents) if part.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0" * _PROBE)
            file.flush()
    except OSError as error:
        raise OSError(f"work folder {folder} cannot be written: {error.strerror}") from error


def set_resume(cfg: Config, resume: str | None) -> None:
    """Chooses the checkpoint to continue from.

    Args:
        cfg: ``resume`` and ``load_from`` are set.
        resume: A path, ``"auto"`` for the latest good checkpoint in the work directory if there is
            one (``load_from`` counts otherwise), or ``None`` to go by the config.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        CheckpointError: It is damaged, or all in the work directory are.
    """
    if resume is None and not cfg.get("resume", False):
        return
    if resume is None and cfg.get("load_from"):
        resume = cfg.load_from
    if resume is None or resume == "auto":
        latest = good_checkpoint(*checkpoint_folders(cfg, cfg.work_dir))
        cfg.resume = latest is not None
        if latest is not None:
            cfg.load_from = str(latest)
        elif is_first_process():
            print(f"nothing to resume in {cfg.work_dir}: training starts at the beginning")
        return
    cfg.resume, cfg.load_from = True, resume


def require_start(cfg: Config) -> None:
    """Token pruning is taught to a trained model, which is its teacher.

    Args:
        cfg: Of a training.

    Raises:
        ValueError: If a config with pruning starts from random weights.
    """
    backbone = cfg.model.get("backbone")
    if not isinstance(backbone, Mapping):  # building says so
        return
    named = [cfg.get("load_from"), cfg.get("resume")]
    named += [part.get(key) for part in (cfg.model, backbone) for key in ("pretrained", "init_cfg")]
    if backbone.get("pruning") and not any(named):
        raise ValueError(
            "pruning is taught to a trained model: name its checkpoint, for instance by "
            "--cfg-options load_from=PATH"
        )


def checkpoint_folders(cfg: Config | Mapping[str, Any], work_dir: str) -> list[Path]:
    """Where checkpoints may be: the work folder, and that of a ``CheckpointHook(out_dir=...)``.

    Args:
        cfg: Has ``default_hooks``, or no such folder.
        work_dir: The work folder.
    """
    hook = (cfg.get("default_hooks") or {}).get("checkpoint")
    out_dir = hook.get("out_dir") if isinstance(hook, Mapping) else None
    name = Path(os.path.abspath(work_dir)).name  # mmengine makes a folder of that name in there
    return [Path(work_dir), *([Path(out_dir, name)] if out_dir else [])]


def latest_checkpoint(*folders: str | Path) -> Path | None:
    """The first of :func:`find_checkpoints`; ``None`` if there is none."""
    return next(iter(find_checkpoints(*folders)), None)


def find_checkpoints(work_dir: str | Path, *others: str | Path) -> list[Path]:
    """Finds the checkpoints to resume from, latest first.

    Args:
        work_dir: Where training wrote.
        *others: More folders with its checkpoints.

    Returns:
        The file that ``last_checkpoint`` names, unless that is damaged or the folder was moved,
        then every ``iter_*.pth`` and ``epoch_*.pth`` beside it, or else in the folders: the kind
        that was written last first, and the highest number first.
    """
    pointer = Path(work_dir, "last_checkpoint")
    text = pointer.read_bytes().decode(errors="replace").strip() if pointer.is_file() else ""
    named = [Path(text)] if os.path.isfile(text) else []  # False for whatever is no path at all
    folders = [named[0].parent] if named else map(Path, (work_dir, *others))
    saved = [path for folder in folders for path in folder.glob("*_*.pth") if path.exists()]
    kinds = [[path for path in saved if path.name.startswith(kind)] for kind in ("iter_", "epoch_")]
    latest = sorted(filter(None, kinds), key=lambda kind: max(map(_written, kind)), reverse=True)
    # by their numbers: after copying a folder, times mean nothing
    ordered = [path for kind in latest for path in sorted(kind, key=_progress, reverse=True)]
    return named + [path for path in ordered if path not in named]


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _progress(path: Path) -> tuple[int, float]:
    number = path.stem.partition("_")[2]
    return int(number) if number.isdecimal() else -1, _written(path)


def good_checkpoint(work_dir: str | Path, *others: str | Path) -> Path | None:
    """Finds the latest checkpoint that can be read; warns of damaged ones that it passes over.

    Args:
        work_dir: Where training wrote.
        *others: More folders with its checkpoints.

    Returns:
        ``None`` if there is no checkpoint at all.

    Raises:
        CheckpointError: There are checkpoints, but all are damaged.
    """
    found, reasons = find_checkpoints(work_dir, *others), []
    for path in found:
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            reasons.append(str(error))
            continue
        if reasons and is_first_process():
            lost = "\n  ".join(reasons)
            warnings.warn(f"{path} is the latest good checkpoint, since\n  {lost}", stacklevel=2)
        return path
    if found:
        raise CheckpointError(
            f"none of {len(found)} checkpoints in {found[0].parent} can be read: {reasons[0]}"
        )
    return None


def use_amp(cfg: Config) -> None:
    """Switches to mixed precision: float16 with loss scaling on an accelerator, else bfloat16.

    Args:
        cfg: ``optim_wrapper`` is changed.

    Raises:
        ValueError: The config has another optimizer wrapper.
    """
    kind = cfg.optim_wrapper.get("type", "OptimWrapper")
    if kind in ("AmpOptimWrapper", "AutocastOptimWrapper"):
        return
    if kind != "OptimWrapper":
        raise ValueError(f"--amp needs optim_wrapper.type 'OptimWrapper', the config has {kind!r}")
    if torch.cuda.is_available():
        cfg.optim_wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")
    else:
        cfg.optim_wrapper.type = "AutocastOptimWrapper"


def is_first_process() -> bool:
    """Whether this is the process with rank 0, known before communication starts."""
    ranks = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
    return next((os.environ[name] for name in ranks if name in os.environ), "0") == "0"


@contextmanager
def friendly_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Ends the program with one line for errors that the user can mend.

    With ``TVIT_DEBUG=1`` in the environment they keep their traceback.

    Args:
        *kinds: What counts as such an error; by default ``ValueError``, ``OSError``, unknown
            arguments and names missing in a registry.
    """
    try:
        yield
    except Exception as error:
        if os.environ.get("TVIT_DEBUG") == "1" or not _is_friendly(error, kinds):
            raise
        raise SystemExit(f"error: {_message(error)}") from None


def _message(error: Exception) -> str:
    text = str(error.args[0] if isinstance(error, KeyError) else error)
    if re.match(r"Caught \w+ in DataLoader worker", text):  # then its traceback, as text
        text = text.rpartition(f"{type(error).__name__}: ")[2].strip()
    return text


def _is_friendly(error: Exception, kinds: tuple[type[Exception], ...]) -> bool:
    return isinstance(error, kinds) if kinds else says_what(error)
