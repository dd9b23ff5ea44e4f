"""One clear error for what is wrong in a config."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner

LARGEST = 2**31 - 1
"""Beyond it lies no number of anything that a config asks for."""


class ConfigError(ValueError):
    """A config that cannot be what somebody wants; the message names the field or component."""


_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG", "NOTSET")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _are_metrics(value: Any) -> bool:
    metrics = value if isinstance(value, (list, tuple)) else [value]
    return value is None or not any(isinstance(one, (str, int, float)) for one in metrics)


_COUNT = (_is_count, "an integer >= 1")
_METRICS = (_are_metrics, "the config of a metric, or a list of them")
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "default_scope": (lambda x: isinstance(x, str), "a name such as 'mmseg'"),
    "env_cfg": (lambda x: isinstance(x, Mapping), "a dict"),
    "env_cfg.mp_cfg.mp_start_method": (
        lambda x: x in (None, "fork", "spawn", "forkserver"),
        "None, 'fork', 'spawn' or 'forkserver'",
    ),
    "load_from": (lambda x: x is None or _is_path(x), "None or a path"),
    "log_level": (lambda x: x in _LEVELS or type(x) is int, f"one of {', '.join(_LEVELS)}"),
    "randomness": (lambda x: isinstance(x, Mapping) and "seed" in x, "a dict with a seed"),
    "randomness.seed": (
        lambda x: x is None or (type(x) is int and x >= 0),
        "None or an integer >= 0",
    ),
    "resume": (lambda x: isinstance(x, bool), "True or False"),
    "test_evaluator": _METRICS,
    "train_cfg.max_epochs": _COUNT,
    "train_cfg.max_iters": _COUNT,
    "train_cfg.val_interval": _COUNT,
    "val_evaluator": _METRICS,
    "work_dir": (_is_path, "a path"),
}
"""Fields that mmengine's runner does not look at before it uses them."""


def check_config(cfg: Config | Mapping[str, Any]) -> None:
    """Refuses what no config can mean, before anything is built from it.

    Args:
        cfg: A config for the runner.

    Raises:
        ConfigError: If a number is NaN or beyond ``LARGEST``, a field of the runner is of a wrong
            kind, or there is a name that looks like a misspelt one of the runner's.
    """
    cfg = dict(cfg.items())  # a mmengine Config is no Mapping
    _check_numbers(cfg, "")
    for name, (fits, wanted) in _FIELDS.items():
        *outer, last = name.split(".")
        part = reduce(lambda x, key: x.get(key) if isinstance(x, Mapping) else None, outer, cfg)
        if isinstance(part, Mapping) and last in part and not fits(part[last]):
            raise ConfigError(f"{name}={part[last]!r} must be {wanted}")
    known = set(inspect.signature(Runner.__init__).parameters)
    for name in cfg.keys() - known:
        close = difflib.get_close_matches(name, known - cfg.keys(), n=1, cutoff=0.82)
        if close:
            raise ConfigError(f"the config has {name!r} but no {close[0]!r}: is it misspelt?")


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


@contextmanager
def naming_components(cfg: Config | Mapping[str, Any]) -> Iterator[None]:
    """Has errors in building a component of a config say which one, and with what arguments.

    Our own errors about files and data pass as they are.

    Args:
        cfg: The config.
    """
    build, cfg = Registry.build, dict(cfg.items())

    def build_and_tell(self: Registry, part: dict, *args: Any, **kwargs: Any) -> Any:
        try:
            return build(self, part, *args, **kwargs)
        except Exception as error:
            ours = type(error).__module__.startswith("tvit_seg.")
            if self.name == "runner" or ours or isinstance(error, OSError):
                raise
            what = str(error.args[0] if error.args else "").partition("\n")[0]
            what = what.partition(" Please check")[0] or type(error).__name__
            scope = cfg.get("default_scope")
            if "mmengine::" in what and scope != "mmengine":
                what += f" default_scope={scope!r} is no known one, such as 'mmseg'."
            name = _find(cfg, part) or self.name
            raise ConfigError(f"{name}={_call(part)} cannot be built: {what}") from error

    Registry.build = build_and_tell
    try:
        yield
    finally:
        Registry.build = build


def _find(cfg: Any, part: Any, name: str = "") -> str | None:
    """Where a component's config stands in the whole config; None if it does not."""
    if name and isinstance(part, Mapping) and cfg == part:
        return name
    inner: Iterable = ()
    if isinstance(cfg, Mapping):
        inner = ((f"{name}.{key}" if name else str(key), value) for key, value in cfg.items())
    elif isinstance(cfg, (list, tuple)):
        inner = ((f"{name}[{index}]", value) for index, value in enumerate(cfg))
    return next((found for key, x in inner if (found := _find(x, part, key))), None)


def says_what(error: Exception) -> bool:
    """Whether an error's message names what the user can mend."""
    if isinstance(error, KeyError):
        return "registry" in str(error)
    if isinstance(error, TypeError):  # a misspelt argument in the config
        return "unexpected keyword argument" in str(error) or "has no argument" in str(error)
    return isinstance(error, (ValueError, OSError))


def _call(cfg: Any) -> str:
    """A component's config as a call, with long arguments cut."""
    if not isinstance(cfg, Mapping):
        return repr(cfg)
    arguments = (f"{name}={_short(value)}" for name, value in cfg.items() if name != "type")
    kind = cfg.get("type")
    name = getattr(kind, "__name__", kind or f"type={kind!r} ")
    return f"{name}({', '.join(arguments)})"


def _short(value: Any, most: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
