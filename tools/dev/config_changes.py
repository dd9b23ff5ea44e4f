"""Changes to fields of configs: to other values that make sense, and to nonsense."""

import copy
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from mmengine.config import Config

SECTIONS = (
    "model", "train_dataloader", "val_dataloader", "val_evaluator", "optim_wrapper",
    "param_scheduler", "train_cfg", "val_cfg", "default_hooks", "custom_hooks", "env_cfg",
    "auto_scale_lr", "randomness", "log_processor", "visualizer", "log_level", "default_scope",
    "load_from", "resume",
)  # fmt: skip
SENSIBLE = 0.55
"""Share of changes to values that a user may well want."""
MISSING, MISSPELT = object(), object()


@dataclass
class Change:
    """One field of a config and what becomes of it.

    Attributes:
        source: Name of the config.
        path: Of the field.
        what: Happens to it.
        value: What it is afterwards.
        related: Fields beside it which an error may name, too, since both do not go together.
    """

    source: str
    path: tuple
    what: str
    value: Any
    related: tuple = ()

    def __str__(self) -> str:
        return f"{Path(self.source).stem}: {self.field} {self.what}"

    @property
    def field(self) -> str:
        return ".".join(map(str, self.path))

    def apply(self, cfg: Config) -> Config:
        changed = copy.deepcopy(cfg)
        holder = changed._cfg_dict
        for key in self.path[:-1]:
            holder = holder[key]
        key = self.path[-1]
        if self.value is MISSING:
            del holder[key]
        elif self.value is MISSPELT:
            holder[misspelt(key)] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(self.value)
        return changed

    def is_named(self, message: str) -> bool:
        """Whether a message says which field it is about, or what stands there.

        That the field is among the arguments of a component which the message repeats does not
        count. A message may say at which iteration the numbers ended that the field led to.
        """
        if message.startswith("error: iteration "):
            return True
        message = re.sub(r"=.*? (cannot be built|does not work): ", " ", message, flags=re.DOTALL)
        keys = [key for key in self.path if isinstance(key, str)]
        names = [*keys[-2 if keys[-1] == "type" else -1 :], misspelt(keys[-1])]
        names.append(keys[-1].removesuffix("s"))  # vis_backends: the vis_backend in visualizer
        names += self.related
        if len(self.path) == 1:
            names.append(self.path[0].partition("_")[2] or self.path[0])  # val_evaluator: evaluator
        if self.value not in (MISSING, MISSPELT) and len(repr(self.value)) > 1:
            names += [repr(self.value), str(self.value) or "''"]
            names += list(map(str, self.value)) if isinstance(self.value, (dict, list)) else []
            names += [str(self.value.get("type"))] if isinstance(self.value, dict) else []
        return any(re.search(rf"(?<!\w){re.escape(one)}(?!\w)", message) for one in names)


def misspelt(key: str) -> str:
    """The name with two letters swapped, or one doubled where that changes nothing."""
    middle = len(key) // 2
    swapped = key[: middle - 1] + key[middle] + key[middle - 1] + key[middle + 1 :]
    return swapped if swapped != key else key + key[-1]


def fields(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """All fields below a value, containers included, with their paths."""
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from fields(inner, (*path, key))
    elif isinstance(value, (list, tuple)) and any(isinstance(v, dict) for v in value):
        for index, inner in enumerate(value):
            yield from fields(inner, (*path, index))


def nonsense(value: Any, in_dict: bool) -> dict[str, Any]:
    """What nobody would want a field to be, for the most part."""
    found = {"is None": None, "is a word": "nonsense", "is a list of words": ["x", "y"]}
    found["is a dict"] = dict(nonsense=1)
    if isinstance(value, bool):
        found["is a float"] = 0.5
    elif isinstance(value, (int, float)):
        found |= {
            "is negative": -abs(value) - 1,
            "is zero": 0,
            "is huge": 10**12,
            "is large": 10**6,
            "is NaN": math.nan,
            "is infinite": math.inf,
            "is a text": str(value),
            "is no integer": value + 0.5,
        }
    elif isinstance(value, str):
        found |= {"is a number": 7, "is empty": "", "is cut": value[:-1]}
    elif isinstance(value, (list, tuple)):
        found |= {"is empty": [], "is turned round": value[::-1], "is cut": value[:-1]}
        found |= {"is a number": 3, "is twice as long": [*value, *value]}
        if value and all(isinstance(v, (int, float)) for v in value):
            found |= {"has a NaN": [math.nan, *value[1:]], "has a minus": [-1, *value[1:]]}
            found |= {"has a huge one": [*value[:-1], 10**12]}
    elif isinstance(value, dict):
        found |= {"is empty": {}, "is a number": 3}
    if in_dict:
        found |= {"is missing": MISSING, "is misspelt": MISSPELT}
    return found


def sensible(path: tuple, value: Any, elsewhere: dict[tuple, list]) -> dict[str, Any]:
    """Other values of the same kind: next to this one, or those of other configs.

    Args:
        path: Of the field.
        value: What stands there.
        elsewhere: From :func:`by_name`.
    """
    found: dict[str, Any] = {}
    if isinstance(value, bool):
        found["is the opposite"] = not value
    elif isinstance(value, int):
        found |= {"is one more": value + 1, "is doubled": 2 * value, "is halved": value // 2}
    elif isinstance(value, float):
        found |= {"is a little more": value * 1.01, "is halved": value / 2}
    elif isinstance(value, (list, tuple)) and value and all(type(v) is int for v in value):
        found |= {"is halved": [v // 2 for v in value], "is doubled": [2 * v for v in value]}
    elif isinstance(value, (list, tuple)) and value and all(type(v) is float for v in value):
        found["is halved"] = [v / 2 for v in value]
    for index, other in enumerate(elsewhere[name(path)]):
        found[f"is as elsewhere ({index})"] = other
    return found


def name(path: tuple) -> tuple:
    """The last two names of a path."""
    return tuple(key for key in path if isinstance(key, str))[-2:]


def by_name(cfgs: dict[str, Config]) -> dict[tuple, list]:
    """All different values that fields of a name have in some configs; data is not swapped."""
    found: dict[tuple, list] = {}
    for cfg in cfgs.values():
        for path, value in fields(cfg._cfg_dict):
            values = found.setdefault(name(path), [])
            if value not in values and "data_root" not in str(value):
                values.append(value)
    return found


def draw(cfgs: dict[str, Config], weights: dict[str, int], count: int, seed: int) -> list[Change]:
    """Changes of all kinds: a source, one of its fields, one of that field's changes.

    Args:
        cfgs: By name.
        weights: How often each is drawn.
        count: How many different ones.
        seed: The same, the same changes.
    """
    rng, elsewhere = random.Random(seed), by_name(cfgs)
    drawn: dict[str, Change] = {}
    while len(drawn) < count:
        source = rng.choices(list(cfgs), [weights[source] for source in cfgs])[0]
        section = rng.choice([one for one in SECTIONS if one in cfgs[source]])
        if rng.random() < 0.4:
            section = "model"
        path, value = rng.choice(list(fields(cfgs[source]._cfg_dict[section], (section,))))
        found = sensible(path, value, elsewhere) if rng.random() < SENSIBLE else {}
        found = {k: v for k, v in found.items() if list_or(v) != list_or(value)}
        related = siblings(cfgs[source], path) if found else ()
        found = found or nonsense(value, isinstance(path[-1], str))
        what, new = rng.choice(list(found.items()))
        if new is not value and list_or(new) != list_or(value):
            change = Change(source, path, what, new, related)
            drawn[str(change)] = change
    return list(drawn.values())


def siblings(cfg: Config, path: tuple) -> tuple:
    """Names of the fields beside one in its component."""
    holder = reduce(lambda part, key: part[key], path[:-1], cfg._cfg_dict)
    inside = len(path) > 1 and isinstance(holder, dict)
    return tuple(key for key in holder if key not in ("type", path[-1])) if inside else ()


def list_or(value: Any) -> Any:
    """Configs do not tell lists from tuples."""
    return list(value) if isinstance(value, tuple) else value
