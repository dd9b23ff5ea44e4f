"""Errors of a config's components say which one it is, and what stands in the config."""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from ..errors import ConfigError
from ..utils.argument_types import misfits
from .argument_hints import hints

_OURS = "tvit_seg."


class Components:
    """What has been built from a config, and from which part of it.

    Args:
        cfg: The config.
    """

    def __init__(self, cfg: Config | Mapping[str, Any]):
        self.cfg = dict(cfg.items())  # a mmengine Config is no Mapping
        self._building: list[str] = []  # names, outermost first
        self._built: dict[int, tuple[Any, str, Callable, Mapping]] = {}

    @contextmanager
    def naming(self, blaming: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Has errors say which component of the config they are about, and with what arguments.

        Arguments of our own components are also held against the types in their signatures. Errors
        about files and data, and our own, pass as they are.

        Args:
            blaming: Says of an error outside of building whether the component that was at work is
                to blame.

        Raises:
            ConfigError: In place of other errors.
        """
        build = Registry.build

        def build_and_tell(registry: Registry, part: Any, *args: Any, **kwargs: Any) -> Any:
            return self._build(build, registry, part, *args, **kwargs)

        Registry.build = build_and_tell
        try:
            yield
        except Exception as error:
            blamed = self._blame(error) if blaming() else None
            if blamed is None:
                raise
            raise blamed from error
        finally:
            Registry.build = build

    def _build(self, build: Callable, registry: Registry, part: Any, *args: Any, **kw: Any) -> Any:
        if registry.name == "runner":
            return build(registry, part, *args, **kw)
        place, written = self._find(part, registry.name)
        name, component = f"{place}={_call(written)}", _component(registry, part)
        self._building.append(place)
        try:
            if component and (wrong := "; ".join(misfits(component, part, _OURS))):
                raise ValueError(wrong)
            built = build(registry, part, *args, **kw)
        except Exception as error:
            if is_told(error):
                raise
            if len(self._building) > 1 and not isinstance(part, Mapping):
                raise  # whoever asked for it knows what it is
            why = self._why(error, part, component)
            raise ConfigError(f"{name} cannot be built: {why}") from error
        finally:
            self._building.pop()
        if component is not None and registry.name != "loop":  # at work in all that happens
            # held, so that its id stays its own; what is handed on is who made it
            self._built.setdefault(id(built), (built, name, component, dict(part)))
        return built

    def _blame(self, error: Exception) -> ConfigError | None:
        """An error that names the innermost component at work, if another is to name it."""
        if is_told(error):
            return None
        for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
            found = self._built.get(id(frame.f_locals.get("self")))
            if found:
                _, name, component, part = found
                why = self._why(error, part, component)
                return ConfigError(f"{name} does not work: {why}")
        return None

    def _find(self, part: Any, kind: str) -> tuple[str, Any]:
        """Where a component stands in the config, and what the user wrote there."""
        unknown = f"{kind} in {self._building[-1]}" if self._building else kind, part
        found = _alike(self.cfg, part) if isinstance(part, Mapping) else ()
        return max(found, key=lambda one: _likeness(one[1], part), default=unknown)

    def _why(self, error: Exception, part: Any, component: Callable | None) -> str:
        text = str(error.args[0] if error.args else "").partition("\n")[0]
        text = " ".join(text.partition(" Please check")[0].split())
        if not isinstance(error, ValueError) and "registry" not in text:  # Python's own words
            text = f"{type(error).__name__}{': ' * bool(text)}{text}{_where(error, component)}"
        found = hints(error, text, part, component) if isinstance(part, Mapping) else []
        text += f" ({'; '.join(found)})" * bool(found)
        scope = self.cfg.get("default_scope")
        if "mmengine::" in text and scope != "mmengine":
            text += f" default_scope={scope!r} is no known one, such as 'mmseg'."
        return text


def is_told(error: Exception) -> bool:
    """Whether an error's message stands on its own: about files, or one of our classes."""
    return isinstance(error, OSError) or type(error).__module__.startswith(_OURS)


def _component(registry: Registry, part: Any) -> Callable | None:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(kind, str) and kind:
        try:
            with registry.switch_scope_and_registry(None) as scoped:
                kind = scoped.get(kind)
        except Exception:  # building says so, in its own words
            return None
    return kind if callable(kind) else None


def _where(error: Exception, component: Callable | None) -> str:
    """The line of code that failed, in the component's package if it passed there."""
    if "argument" in str(error):  # says which
        return ""
    package = (getattr(component, "__module__", None) or "").partition(".")[0]
    frames = [
        one
        for one in traceback.walk_tb(error.__traceback__)
        if not one[0].f_globals.get("__name__", "").startswith(("mmengine.registry.", __name__))
    ]
    own = [one for one in frames if one[0].f_globals.get("__name__", "").startswith(package)]
    stack = traceback.StackSummary.extract(iter((own or frames)[-1:]))
    line = stack[0].line if stack else ""
    return f" in `{line}`" if line and not line.startswith("raise ") else ""


def _alike(cfg: Any, part: Mapping, name: str = "") -> Iterator[tuple[str, Mapping]]:
    """Where in a whole config a component may stand; some get or lose arguments on their way."""
    if name and isinstance(cfg, Mapping) and any(_likeness(cfg, part)):
        yield name, cfg
    inner: Iterable = ()
    if isinstance(cfg, Mapping):
        inner = ((f"{name}.{key}" if name else str(key), value) for key, value in cfg.items())
    elif isinstance(cfg, (list, tuple)):
        inner = ((f"{name}[{index}]", value) for index, value in enumerate(cfg))
    for key, value in inner:
        yield from _alike(value, part, key)


def _likeness(cfg: Mapping, part: Mapping) -> tuple[bool, int]:
    """Whether they are equal, and how many arguments they share if none contradicts."""
    named = isinstance(part.get("type"), str)  # a class there has replaced what the user wrote
    shared = [key for key in cfg if key in part and (named or key != "type")]
    fits = all(cfg[key] == part[key] for key in shared) and (not named or "type" in cfg)
    return cfg == part, len(shared) * fits


def _call(cfg: Any) -> str:
    """A component's config as a call, with long arguments cut."""
    if not isinstance(cfg, Mapping):
        return repr(cfg)
    arguments = (f"{name}={_short(value)}" for name, value in cfg.items() if name != "type")
    kind = cfg.get("type", "dict")
    name = getattr(kind, "__name__", kind or f"type={kind!r} ")
    return f"{name}({', '.join(arguments)})"


def _short(value: Any, most: int = 60) -> str:
    text = repr(value)
    if len(text) > most and isinstance(value, Mapping) and isinstance(value.get("type"), str):
        return f"{value['type']}(...)"
    return text if len(text) <= most else f"{text[: most - 3]}..."
