"""One clear error for what is wrong in a config."""

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..errors import ConfigError
from ..utils.argument_types import misfits

LARGEST = 2**31 - 1
"""Beyond it lies no number of anything that a config asks for."""


_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG", "NOTSET")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_part(value: Any) -> bool:
    return value is not None and not isinstance(value, (str, int, float, list, tuple))


def _are_parts(value: Any) -> bool:
    return value is None or all(map(_is_part, _each(value)))


def _each(value: Any) -> Sequence:
    return value if isinstance(value, (list, tuple)) else [value]


_PART = (_is_part, "the config of a component")
_DICT = (lambda x: isinstance(x, Mapping), "a dict")
_COUNT = (_is_count, "an integer >= 1")
_SAMPLER = (lambda x: x is None or _is_part(x), "the config of a sampler")
_METRICS = (_are_parts, "the config of a metric, or a list of them")
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "default_scope": (_is_name, "a name such as 'mmseg'"),
    "env_cfg.dist_cfg": _DICT,
    "env_cfg.mp_cfg": _DICT,
    "env_cfg.mp_cfg.mp_start_method": (
        lambda x: x in (None, "fork", "spawn", "forkserver"),
        "None, 'fork', 'spawn' or 'forkserver'",
    ),
    "load_from": (lambda x: x is None or _is_name(x), "None or a path"),
    "log_level": (lambda x: x in _LEVELS or type(x) is int, f"one of {', '.join(_LEVELS)}"),
    "optim_wrapper.optimizer": _PART,
    "param_scheduler": (_are_parts, "the config of a schedule, or a list of them"),
    "randomness.seed": (
        lambda x: x is None or (type(x) is int and x >= 0),
        "None or an integer >= 0",
    ),
    "test_dataloader.dataset": _PART,
    "test_dataloader.sampler": _SAMPLER,
    "test_evaluator": _METRICS,
    "train_cfg.max_epochs": _COUNT,
    "train_cfg.max_iters": _COUNT,
    "train_cfg.val_interval": _COUNT,
    "train_dataloader.dataset": _PART,
    "train_dataloader.sampler": _SAMPLER,
    "val_dataloader.dataset": _PART,
    "val_dataloader.sampler": _SAMPLER,
    "val_evaluator": _METRICS,
    "work_dir": (_is_name, "a path"),
}
"""Fields that mmengine's runner does not look at before it uses them."""
_NEEDED = {
    "auto_scale_lr": ("base_batch_size",),
    "optim_wrapper": ("optimizer", "constructor"),
    "optim_wrapper.optimizer": ("type",),
    "param_scheduler": ("type",),
    "randomness": ("seed",),
    "test_dataloader": ("dataset",),
    "test_dataloader.dataset": ("type",),
    "train_cfg": ("type", "by_epoch"),
    "train_dataloader": ("dataset",),
    "train_dataloader.dataset": ("type",),
    "val_dataloader": ("dataset",),
    "val_dataloader.dataset": ("type",),
}
"""What it takes for granted, one of these, in a dict or each of a list."""


def check_config(cfg: Config | Mapping[str, Any], needed: Sequence[str] = ()) -> None:
    """Refuses what no config can mean, before anything is built from it.

    Args:
        cfg: A config for the runner.
        needed: What must be there, and not None.

    Raises:
        ConfigError: If something is not there, a number is NaN or beyond ``LARGEST``, a field of
            the runner is of a wrong kind or lacks something, or there is a name that looks like a
            misspelt one of the runner's.
    """
    cfg = dict(cfg.items())  # a mmengine Config is no Mapping
    _check_numbers(cfg, "")
    _check_names(cfg)
    if absent := [name for name in needed if cfg.get(name) is None]:
        raise ConfigError(f"the config has no {', no '.join(absent)}")
    for name, (fits, wanted) in _FIELDS.items():
        *outer, last = name.split(".")
        part = _get(cfg, outer)
        if isinstance(part, Mapping) and last in part and not fits(part[last]):
            raise ConfigError(f"{name}={part[last]!r} must be {wanted}")
    for name, keys in _NEEDED.items():
        for part in _each(_get(cfg, name.split("."))):
            if isinstance(part, Mapping) and not part.keys() & set(keys):
                raise ConfigError(f"{name}={part} must have {' or '.join(map(repr, keys))}")
    _check_lists(cfg)
    rest = {name: value for name, value in cfg.items() if name not in _FIELDS}
    for wrong in misfits(Runner, rest):
        raise ConfigError(wrong)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        for wrong in misfits(DataLoader, cfg.get(name) or {}):
            raise ConfigError(f"{name}.{wrong}")


def _check_names(cfg: Mapping[str, Any]) -> None:
    known = set(inspect.signature(Runner.__init__).parameters)
    for name in cfg.keys() - known:
        close = difflib.get_close_matches(name, known - cfg.keys(), n=1, cutoff=0.82)
        if close:
            raise ConfigError(f"the config has {name!r} but no {close[0]!r}: is it misspelt?")


def _check_lists(cfg: Mapping[str, Any]) -> None:
    for name in ("val_evaluator", "test_evaluator"):
        metrics = [part for part in _each(cfg.get(name)) if isinstance(part, Mapping)]
        kinds = [(part.get("type"), part.get("prefix")) for part in metrics]
        for kind, prefix in kinds:
            if kinds.count((kind, prefix)) > 1:
                raise ConfigError(f"{name} has two of type={kind!r} with {prefix=}: set another")
    for part in _each(cfg.get("param_scheduler")):
        converted = isinstance(part, Mapping) and part.get("convert_to_iter_based")
        if converted and not part.get("by_epoch", True):
            raise ConfigError(
                f"param_scheduler={part} must have by_epoch=True with convert_to_iter_based"
            )


def _get(cfg: Any, keys: list[str]) -> Any:
    return reduce(lambda x, key: x.get(key) if isinstance(x, Mapping) else None, keys, cfg)


def _check_numbers(value: Any, name: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _check_numbers(inner, f"{name}[{index}]")
    elif isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{name}=nan is not a number")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError(f"{name}={value} is beyond {LARGEST}, which nothing in a config needs")


def says_what(error: Exception) -> bool:
    """Whether an error's message names what the user can mend."""
    if isinstance(error, KeyError):
        return "registry" in str(error)
    if isinstance(error, TypeError):  # a misspelt argument in the config
        return "unexpected keyword argument" in str(error) or "has no argument" in str(error)
    return isinstance(error, (ValueError, OSError))
