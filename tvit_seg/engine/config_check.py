"""Checks of a whole config, and errors that name the part that was being built."""

import copy
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import isfunction, signature
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from torch.utils.data import DataLoader

from ..datasets.corrupt import pop_skip_corrupt
from ..errors import CheckpointError, ConfigError, TvitSegError
from ..utils.checks import check, check_keys, did_you_mean
from ..utils.text import first_line

_SECTIONS = tuple(signature(Runner).parameters)
_LOADER_OPTIONS = (*signature(DataLoader).parameters, "num_batch_per_epoch")


_COUNT = (lambda x: type(x) is int and x >= 1, "an integer >= 1")
_MMSEG_DECAY = ("LearningRateDecayOptimizerConstructor", "LayerDecayOptimizerConstructor")
_PATH = (lambda x: x is None or (isinstance(x, str) and x != ""), "None or a path")
RULES = {
    "default_scope": (lambda x: isinstance(x, str) and x != "", "a name such as 'mmseg'"),
    "load_from": _PATH,
    "optim_wrapper.optimizer": (lambda x: isinstance(x, Mapping), "the config of an optimizer"),
    "randomness.seed": (lambda x: x is None or (type(x) is int and x >= 0), "an integer >= 0"),
    "train_cfg.max_epochs": _COUNT,
    "train_cfg.max_iters": _COUNT,
    "train_cfg.val_interval": _COUNT,
    "work_dir": _PATH,
}
"""Fields with their conditions, and what they "must be": checked where a config has the field."""


def check_config(cfg: Config | Mapping[str, Any], needed: Sequence[str] = ()) -> None:
    """Reject a config with missing or misspelt sections, or a field that violates :data:`RULES`.

    Args:
        needed: Required sections.
    """
    cfg = dict(cfg.items())  # a mmengine Config is no Mapping
    unused = set(_SECTIONS) - cfg.keys()
    for name in cfg.keys() - set(_SECTIONS):  # other names are the user's own
        if hint := did_you_mean(name, unused, cutoff=0.82):
            raise ConfigError(f"the config has {name!r}{hint}")
    if absent := [name for name in needed if cfg.get(name) is None]:
        raise ConfigError(f"the config has no {', no '.join(absent)}")
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        check_keys(name, cfg.get(name) or {}, _LOADER_OPTIONS)
    parts = dict(_dicts(cfg))
    for field, (fits, allowed) in RULES.items():
        section, _, last = field.rpartition(".")
        if last in parts.get(section, {}):
            check(fits(parts[section][last]), field, parts[section][last], allowed)
    for name, part in parts.items():
        if name.rpartition(".")[-1] == "metainfo":
            given = part.get("classes")
            fits = not isinstance(given, str) or Path(given).is_file()  # which has a name a line
            check(fits, f"{name}.classes", given, f"a tuple of names; ({given!r},) has one")
    kind = str(parts.get("model.backbone", {}).get("type")).rpartition(".")[-1]
    constructor = parts.get("optim_wrapper", {}).get("constructor")
    fits = not kind.startswith("Thinking") or constructor not in _MMSEG_DECAY
    ours = f"'LayerDecayOptimWrapperConstructor', as mmseg's does not know the layers of {kind}"
    check(fits, "optim_wrapper.constructor", constructor, ours)


_IGNORES = {
    **dict.fromkeys(("ExactIoUMetric", "IoUMetric", "ThinkingMetric"), "ignore_index"),
    **dict.fromkeys(("GenerateEdge", "TverskyLoss"), "ignore_index"),
    **dict.fromkeys(("RandomMosaic", "RandomRotate", "SegDataPreProcessor"), "seg_pad_val"),
}
"""Parts that leave out, or pad with, the label 255 unless this option says otherwise."""
_HEAD = re.compile(r"(decode_head|auxiliary_head)(\.\d+)?(\.(head|kernel_generate_head))?")


def check_ignore_index(cfg: Config | Mapping[str, Any]) -> None:
    """Reject a config whose heads, metrics, datasets and padding ignore different labels.

    Datasets are built, but read no files.
    """
    model = cfg["model"]
    model = model.get("module") or model  # of test-time augmentation
    if "decode_head" not in model:
        return
    loaders = [f"{split}_dataloader" for split in ("train", "val", "test")]
    data = {name: copy.deepcopy(cfg.get(name)) for name in loaders}
    for loader in filter(None, data.values()):
        pop_skip_corrupt(loader["dataset"])
    evaluators = {name: cfg.get(name) for name in ("val_evaluator", "test_evaluator")}
    found: dict[Any, list[str]] = {}
    for name, part in _dicts({"model": model, **data, **evaluators}):
        value = _ignored_label(name, part)
        if value is not None:
            found.setdefault(value, []).append(name)
    listed = "; ".join(f"{value} in {', '.join(names)}" for value, names in found.items())
    if len(found) > 1:
        raise ConfigError(
            f"ignore_index (of padding: seg_pad_val) must be the same everywhere, got {listed}"
        )


def _ignored_label(name: str, part: Mapping[str, Any]) -> Any:
    """Return the label that a part of a config ignores or pads with; None for other parts."""
    kind = part.get("type")
    short = (kind if isinstance(kind, str) else getattr(kind, "__name__", "")).rpartition(".")[-1]
    if kind is not None and _HEAD.fullmatch(name.removeprefix("model.")):
        inner = "head" in part or "kernel_generate_head" in part  # which follows in this loop
        return None if inner else part.get("ignore_index", 255)
    if short == "Pad":
        padding = part.get("pad_val", 0)
        return padding.get("seg", 255) if isinstance(padding, Mapping) else 255
    if short in _IGNORES:
        return part.get(_IGNORES[short], 255)
    if "_dataloader.dataset" in name and kind is not None and "pipeline" in part:
        cls = DATASETS.get(kind) if isinstance(kind, str) else kind
        if isinstance(cls, type) and issubclass(cls, BaseSegDataset):
            return DATASETS.build({**part, "pipeline": [], "lazy_init": True}).ignore_index
    given = name.endswith("image_loss") or short == "RandomCrop" or short.endswith("Metric")
    return part.get("ignore_index") if given else None  # DiceLoss leaves out a class by this name


@contextmanager
def building(cfg: Config | Mapping[str, Any]) -> Iterator[None]:
    """Raise ``ConfigError`` that names the part being built, as in ``model.decode_head (FCNHead)``.

    Errors about files and data, and errors outside of mmengine's registries, pass unchanged.
    """
    try:
        yield
    except Exception as error:
        passes = isinstance(error, (OSError, TvitSegError)) and not isinstance(error, ConfigError)
        call = None if passes else _innermost_build(error)
        if call is None or (isinstance(error, ConfigError) and isinstance(call["cfg"], Config)):
            raise  # not while building a part, or a message of the runner itself
        where = _place(cfg, call["cfg"])
        raise ConfigError(f"while building {where}: {_reason(error, call)}") from error


@contextmanager
def naming_key(cfg: Config | Mapping[str, Any]) -> Iterator[None]:
    """Add to an error about a checkpoint the key of the model's config that names the file."""
    try:
        yield
    except (CheckpointError, FileNotFoundError) as error:
        for name, part in _dicts(cfg.get("model"), "model"):
            for key in ("checkpoint", "pretrained"):
                if isinstance(part.get(key), str) and part[key] in str(error):
                    where = name if key == "checkpoint" else f"{name}.{key}"
                    raise type(error)(f"{where}: {error}") from error
        raise


def _innermost_build(error: Exception) -> dict[str, Any] | None:
    """Return ``cfg``, and ``obj_cls`` if known, of the innermost part that was being built."""
    calls: list[dict[str, Any]] = []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        values = frame.f_locals
        if frame.f_globals.get("__name__", "").startswith("mmengine.registry."):
            calls.append(values)
        elif frame.f_code.co_name == "build_dataloader" and "dataloader" in values:
            # no registry builds loaders; the runner's own loop would be blamed
            calls.append({"cfg": values["dataloader"], "obj_cls": DataLoader})
    calls = [call for call in calls if isinstance(call.get("cfg"), (Mapping, Config))]
    if len(calls) > 1 and calls[-1].get("obj_cls") is DataLoader is calls[-2].get("obj_cls"):
        calls.pop()  # the parent's, of a changed config
    return calls[-1] if calls else None


def _place(cfg: Config | Mapping[str, Any], part: Config | Mapping[str, Any]) -> str:
    """Return the dotted name of the most similar part, with its type in parentheses."""
    kind = part.get("type") or part.get("runner_type", "no type")
    kind = "DataLoader" if "dataset" in part and "type" not in part else kind

    def likeness(item: tuple[str, Mapping]) -> int:  # on the way here arguments come and go
        keys = [key for key in item[1] if key in part and (key != "type" or isinstance(kind, str))]
        return len(keys) if all(item[1][key] == part[key] for key in keys) else -1

    sections = {name: cfg.get(name) for name in _SECTIONS}  # fragments of configs repeat them
    name, _ = max(_dicts(sections), key=likeness)
    return f"{name} ({getattr(kind, '__name__', kind)})".lstrip()


def _dicts(value: Any, name: str = "") -> Iterator[tuple[str, Mapping]]:
    """Yield each dict in nested containers with its name, dotted as in ``--cfg-options``."""
    if isinstance(value, Mapping):
        yield name, value
    elif not isinstance(value, (list, tuple)):
        return
    for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from _dicts(inner, f"{name}.{key}".lstrip("."))


def _reason(error: Exception, call: Mapping[str, Any]) -> str:
    """Return an error's text in one line, with a hint if an argument is misspelt."""
    text = first_line(error.args[0] if isinstance(error, KeyError) and error.args else error)
    text = text.partition(" Please check")[0]
    if not str(error):  # a bare assert
        text = traceback.extract_tb(error.__traceback__)[-1].line or ""
    if not isinstance(error, ValueError) and "registry" not in text:  # Python's own words
        text = f"{type(error).__name__}: {text}"
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", text):
        bases = getattr(call.get("obj_cls"), "__mro__", ())
        methods = [base.__init__ for base in bases if isfunction(vars(base).get("__init__"))]
        text += did_you_mean(unknown[1], {x for one in methods for x in signature(one).parameters})
    return text
