"""Old names, available until the next release: one table of what moved where."""

import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import Any

_MODULES = {
    "tvit_seg.backbones": "tvit_seg.models.backbones",
    "tvit_seg.checkpoint": "tvit_seg.weights.convert",
    "tvit_seg.checkpoint_io": "tvit_seg.weights.io",
    "tvit_seg.classifiers": "tvit_seg.models.classifiers",
    "tvit_seg.gates": "tvit_seg.models.gates",
    "tvit_seg.layers": "tvit_seg.models.layers",
    "tvit_seg.pruning": "tvit_seg.models.pruning",
    "tvit_seg.segmentors": "tvit_seg.models.segmentors",
    "tvit_seg.timm_models": "tvit_seg.models.timm_models",
}
_NAMES = {
    "tvit_seg.evaluation.ThinkingVisualizer": "tvit_seg.visualization.ThinkingVisualizer",
    "tvit_seg.evaluation.draw_kept_tokens": "tvit_seg.visualization.draw_keep_masks",
}
_FIELDS = {("tvit_seg.thinking", "Thought", "kept_tokens"): "keep_mask"}


class _MovedModule(ModuleType):
    """A module under its old name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # requested by the import system
            raise AttributeError(name)
        target = _MODULES[self.__name__]
        _warn(self.__name__, target)
        return getattr(import_module(target), name)


def install() -> None:
    """Make the old names readable; each warns once where it is used."""
    for old in _MODULES:
        module = sys.modules[old] = _MovedModule(old)
        module.__path__ = []
        parent, _, name = old.rpartition(".")
        setattr(sys.modules[parent], name, module)
    for room in {old.rpartition(".")[0] for old in _NAMES}:
        vars(sys.modules[room])["__getattr__"] = _name_in(room)
    for (module, cls, old), new in _FIELDS.items():
        setattr(getattr(import_module(module), cls), old, _field(f"{cls}.{old}", new))


def _name_in(room: str) -> Any:
    def get(name: str) -> Any:
        old = f"{room}.{name}"
        if old not in _NAMES:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        _warn(old, _NAMES[old])
        module, _, name = _NAMES[old].rpartition(".")
        return getattr(import_module(module), name)

    return get


def _field(old: str, new: str) -> property:
    def get(instance: Any) -> Any:
        _warn(old, new)
        return getattr(instance, new)

    return property(get)


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is now {new}; the next release removes the old name", FutureWarning, 3)
