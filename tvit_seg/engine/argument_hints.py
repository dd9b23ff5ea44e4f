"""What may be wrong with a component's arguments, where its error does not say."""

from collections.abc import Callable, Mapping
from typing import Any

from mmengine.registry import MODELS

from ..utils.argument_types import misfits


def hints(
    error: Exception, text: str, arguments: Mapping[str, Any], component: Callable | None
) -> list[str]:
    """Finds arguments that look odd.

    Args:
        error: Of the component.
        text: What is said of it so far; arguments that it names are passed over.
        arguments: By name.
        component: A class or function, None if there is none of the name in the config.

    Returns:
        For each odd argument, what it is.
    """
    if '"type"' in text:
        return [f"not in {k}={v}" for k, v in arguments.items() if _is_part(v) and "type" not in v]
    if "egistry" in text:  # mmcv does not say whose type it does not find
        parts = {k: v["type"] for k, v in arguments.items() if _is_part(v) and "type" in v}
        return [f"{k} has type={v!r}" for k, v in parts.items() if not _is_known(v)]
    if isinstance(error, ValueError) or component is None:
        return []
    unnamed = {k: v for k, v in arguments.items() if k not in text}
    found = [f"by its signature {wrong}" for wrong in misfits(component, unnamed)]
    found += [f"{k}={v!r} is no dict" for k, v in unnamed.items() if _is_no_cfg(k, v)]
    return found or [f"{k}={v!r} is a text" for k, v in unnamed.items() if _is_number_text(v)]


def _is_no_cfg(name: str, value: Any) -> bool:
    return name.endswith("_cfg") and not isinstance(value, (Mapping, list, tuple, type(None)))


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_known(kind: Any) -> bool:
    if not isinstance(kind, str):
        return callable(kind)
    with MODELS.switch_scope_and_registry(None) as registry:
        return registry.get(kind) is not None


def _is_number_text(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return isinstance(value, str)
