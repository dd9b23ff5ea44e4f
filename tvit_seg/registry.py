"""Registries of the scope ``tvit_seg``.

mmengine imports this file when a config names ``type='tvit_seg.ThinkingViT'``. Everything is also
registered in mmseg's own registries, so that after ``import tvit_seg`` the bare name
``type='ThinkingViT'`` works as well.
"""

from collections.abc import Callable, Mapping
from typing import Any

import mmengine.registry as mmengine_registry
import mmseg.registry as mmseg_registry
from mmengine.registry import Registry

from .utils.checks import check

_KINDS = (
    "MODELS", "DATASETS", "DATA_SAMPLERS", "HOOKS", "LOOPS", "METRICS", "VISUALIZERS",
    "VISBACKENDS", "OPTIM_WRAPPERS", "OPTIM_WRAPPER_CONSTRUCTORS", "RUNNERS",
)  # fmt: skip


def _child(kind: str) -> Registry:
    parent = getattr(mmengine_registry, kind)
    return Registry(parent.name, parent=parent, scope="tvit_seg", locations=["tvit_seg"])


_OURS = {kind: _child(kind) for kind in _KINDS}

MODELS = _OURS["MODELS"]
OPTIM_WRAPPERS = _OURS["OPTIM_WRAPPERS"]
RUNNERS = _OURS["RUNNERS"]

# No mm* package has registries for gates and token pruning.
GATES = Registry("gate", scope="tvit_seg", locations=["tvit_seg"])
PRUNINGS = Registry("pruning", scope="tvit_seg", locations=["tvit_seg"])


def register(kind: str) -> Callable[[type], type]:
    """Make a decorator that registers a class under its name, in this scope and in mmseg's.

    Args:
        kind: Name of a registry above, such as ``MODELS``.
    """

    def decorator(cls: type) -> type:
        _OURS[kind].register_module(module=cls)
        getattr(mmseg_registry, kind).register_module(module=cls)
        return cls

    return decorator


def build_own(registry: Registry, name: str, config: Mapping[str, Any], **options: Any) -> Any:
    """Build an object of ``GATES`` or ``PRUNINGS``, whatever mmengine's default scope is.

    Args:
        name: Of the argument that holds the config.
        config: Registered class (or its name, with or without a scope) as ``type``, and arguments.
        **options: Further arguments.

    Raises:
        ConfigError: If the config is no dict or names no registered class.
    """
    kind = config.get("type") if isinstance(config, Mapping) else None
    known = registry.module_dict
    cls = kind if isinstance(kind, type) else known.get(str(kind).split(".")[-1])
    check(cls is not None, name, config, f"None or a dict with a type out of {sorted(known)}")
    return cls(**{key: value for key, value in config.items() if key != "type"}, **options)
