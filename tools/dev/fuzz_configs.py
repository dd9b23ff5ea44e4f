"""Changes fields of shipped configs to nonsense and trains, validates and tests with each.

A change must show: in an error that names the field or its value, or in what was built from the
config. The models are cut to a few blocks and the data to a handful of made-up images.
"""

import argparse
import copy
import math
import random
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from fuzzing import Verdict, add_limits, isolated, report, run_all
from mmengine.config import Config

import tvit_seg  # noqa: F401, registers everything
from tvit_seg.datasets.scenes import write_scenes
from tvit_seg.engine.launch import build_runner, friendly_errors

CONFIGS = Path(__file__).parents[2] / "configs"
SOURCES = {
    "quickstart/thinkingvit_scenes-96x96.py": 3,
    "quickstart/thinkingvit-pruned_scenes-96x96.py": 2,
    "upernet/upernet_thinkingswin-nano_1xb32-700_scenes-96x96.py": 3,
    "segmenter/segmenter_thinkingvit-3h-6h_mask_8xb1-160k_ade20k-512x512.py": 2,
    "pretrain/thinkingvit-mini-1h-3h_1xb128-10e_cifar10-32x32.py": 2,
    "pretrain/thinkingvit-3h-6h_8xb128-300e_imagenet-224x224.py": 1,
}
"""Leaf configs, and how often they are drawn."""

SECTIONS = (
    "model", "train_dataloader", "val_dataloader", "val_evaluator", "optim_wrapper",
    "param_scheduler", "train_cfg", "val_cfg", "default_hooks", "custom_hooks", "env_cfg",
    "auto_scale_lr", "randomness", "log_processor", "visualizer", "log_level", "default_scope",
    "load_from", "resume",
)  # fmt: skip

LIKE_BEFORE = {
    r"\.(pretrained|load_from|init_cfg|neck|teacher)$": "None is what they are",
    r"^env_cfg\.|^visualizer\.|^log_level|^log_processor": "how the machine runs and what it says",
    r"num_workers|persistent_workers|drop_last|prefetch": "how data is loaded, not which",
    r"meta_keys": "what is handed on",
    r"^auto_scale_lr": "the batch is another one here",
}
"""Fields that may change without a trace in what was built, and why."""

MISSING, MISSPELT = object(), object()


@dataclass
class Change:
    """One field of a config and what becomes of it."""

    source: str
    path: tuple
    what: str
    value: Any

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
            holder[key] = self.value
        return changed

    def is_named(self, message: str) -> bool:
        """Whether a message says which field it is about, or what stands there.

        It may also say at which iteration, and where, the numbers ended that the field led to.
        """
        if message.startswith("error: iteration "):
            return True
        keys = [key for key in self.path if isinstance(key, str)][-2:]
        names = [key for key in (*keys, misspelt(keys[-1])) if key != "type"]
        names.append(self.path[0].partition("_")[2] or self.path[0])  # val_evaluator: evaluator
        names += ["metrics"] if "evaluator" in self.path[0] else []
        if self.value not in (MISSING, MISSPELT) and len(repr(self.value)) > 1:
            names += [repr(self.value), str(self.value) or "''"]
            names += list(map(str, self.value)) if isinstance(self.value, (dict, list)) else []
        if keys[-1] == "type":
            names += ["'type'", '"type"', "`type`"]
        return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message) for name in names)


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


def changes(value: Any, in_dict: bool) -> dict[str, Any]:
    """What a field's value may be changed to."""
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


def draw(cfgs: dict[str, Config], count: int, seed: int) -> list[Change]:
    """Changes of all kinds: a source, one of its fields, one of that field's changes."""
    rng = random.Random(seed)
    drawn = {}
    while len(drawn) < count:
        source = rng.choices(list(cfgs), [SOURCES[name] for name in cfgs])[0]
        section = rng.choice([name for name in SECTIONS if name in cfgs[source]])
        if rng.random() < 0.4:
            section = "model"
        path, value = rng.choice(list(fields(cfgs[source]._cfg_dict[section], (section,))))
        what, new = rng.choice(list(changes(value, isinstance(path[-1], str)).items()))
        if new is not value and new != value:
            change = Change(source, path, what, new)
            drawn[str(change)] = change
    return list(drawn.values())


# ---------------------------------------------------------------- small trainings


def make_data(root: Path) -> None:
    """A few images in the layout of each dataset."""
    write_scenes(root / "scenes", 4, 2, (96, 96), 0)
    rng = np.random.default_rng(0)

    def image(path: Path, size: tuple[int, int], labels: int | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = size if labels else (*size, 3)
        cv2.imwrite(str(path), rng.integers(0, labels or 256, shape, dtype=np.uint8))

    for name in ("training", "validation"):
        for i in range(2):
            image(root / "ade/images" / name / f"{i}.jpg", (48, 64))
            image(root / "ade/annotations" / name / f"{i}.png", (48, 64), 151)
    for split, label in product(("train", "val", "test"), range(10)):
        image(root / "cifar10" / split / f"c{label}" / "0.png", (32, 32))
        image(root / "imagenet" / split / f"c{label}" / "0.png", (64, 64))


def small(path: Path, data: Path, work_dir: Path) -> Config:
    """A shipped config with two blocks, two steps, and made-up data."""
    cfg = Config.fromfile(path)
    cfg.work_dir, cfg.log_level, cfg.launcher = str(work_dir), "ERROR", "none"
    cfg.randomness = dict(seed=0)
    model = cfg.model
    backbone = model.backbone
    if backbone.type == "ThinkingViT":
        backbone.num_layers = 4 if backbone.get("pruning") else 2
    if "pretrained" in model:
        model.pretrained = None
    if cfg.get("load_from"):
        cfg.load_from = None
    if "ade20k" in path.name:
        for section in (cfg.model, cfg.train_dataloader, cfg.val_dataloader):
            shrink(section)
    root = data / ("ade" if "ade20k" in path.name else str(cfg.data_root).split("/")[-1])
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        loader = cfg[name]
        loader.batch_size, loader.num_workers = 2, 0
        loader.persistent_workers = False
        loader.dataset.data_root = str(root)
    if "imagenet" in path.name:
        backbone.num_classes = 10
        cfg.train_dataloader.dataset.num_classes = cfg.val_dataloader.dataset.num_classes = 10
        cfg.test_dataloader.dataset.num_classes = 10
    if "max_iters" in cfg.train_cfg:
        cfg.train_cfg.max_iters = cfg.train_cfg.val_interval = 2
    else:
        cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 1
        cfg.train_dataloader.sampler = dict(type="DefaultSampler", shuffle=True)
        cfg.train_dataloader.batch_size = 10
    cfg.test_dataloader = cfg.val_dataloader
    return cfg


def shrink(part: Any) -> None:
    """Divides all sizes in pixels by 8."""
    for key, value in part.items():
        if key in ("img_size", "size", "crop_size", "stride", "scale") and value:
            part[key] = tuple(length // 8 for length in value)
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                shrink(inner)


def train(cfg: Config) -> dict[str, Any]:
    """What a training leaves behind, as far as it can be compared; errors as tools/train.py."""
    with friendly_errors(Exception), tempfile.TemporaryDirectory() as folder:
        cfg = copy.deepcopy(cfg)
        if isinstance(cfg.get("work_dir"), str):
            cfg.work_dir = folder
        cfg.runner_type = "ThinkingRunner"
        runner = build_runner(cfg)
        runner.train()
        metrics = runner.val_loop.run()
    hub = runner.message_hub
    losses = {
        name: [float(x) for x in values.data[0]]
        for name, values in hub.log_scalars.items()
        if "time" not in name and "memory" not in name
    }
    return dict(
        metrics={name: float(value) for name, value in metrics.items()},
        losses=losses,
        built=[portrait(part) for part in parts(runner)],
        weights=all(torch.isfinite(x).all() for x in runner.model.state_dict().values()),
    )


def parts(runner: Any) -> list[Any]:
    """Everything that was built from the config."""
    loops = (runner.train_loop, runner.val_loop)
    loaders = [loop.dataloader for loop in loops]
    datasets = [loader.dataset for loader in loaders]
    pipelines = [getattr(getattr(data, "pipeline", None), "transforms", []) for data in datasets]
    return [
        *runner.model.modules(), *loops, *loaders, *datasets, *[t for p in pipelines for t in p],
        *[loader.sampler for loader in loaders], *runner.hooks, *runner.param_schedulers,
        runner.optim_wrapper, runner.val_loop.evaluator, *runner.val_loop.evaluator.metrics,
        runner.visualizer, runner.log_processor, runner.optim_wrapper.param_groups, runner,
    ]  # fmt: skip


def portrait(part: Any) -> str:
    """Kind and plain attributes of something that was built."""
    if isinstance(part, list):
        return str([{k: v for k, v in group.items() if k != "params"} for group in part])
    kept = {name: value for name, value in vars(part).items() if name != "cfg" and plain(value)}
    extra = part.extra_repr() if isinstance(part, torch.nn.Module) else ""
    return f"{type(part).__name__} {extra} {kept}"


def plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    if isinstance(value, dict):
        return all(map(plain, value.values())) and not any("time" in str(k) for k in value)
    return isinstance(value, (bool, int, float, str, type(None))) and "/tmp" not in str(value)


def finite(losses: dict[str, list[float]]) -> bool:
    """Whether what was minimised is; shares of nobody are NaN by right."""
    return all(map(math.isfinite, losses["train/loss"]))


def judge(change: Change, cfg: Config, expected: dict[str, Any]) -> Verdict:
    """Trains with a change and says how that ends."""
    try:
        found = train(change.apply(cfg))
    except SystemExit as error:
        text = str(error)
        return ("refused" if change.is_named(text) else "unclear"), text
    if not finite(found["losses"]) or not found["weights"]:
        return "silent", "losses or weights that are not finite"
    same = repr(found) == repr(expected)  # NaN is not equal to itself
    if same and not any(re.search(p, f".{change.field}") for p in LIKE_BEFORE):
        return "silent", "the same result as without the change"
    return "right", "the same result" if same else "another result"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_limits(parser, cases=200)
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), help="parts of their names")
    args = parser.parse_args(argv)
    sources = [name for name in SOURCES if any(part in name for part in args.sources)]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        make_data(data)
        cfgs = {name: small(CONFIGS / name, data, data / "work") for name in sources}
        drawn = draw(cfgs, args.cases, args.seed)
        expected = {}
        for name in {change.source for change in drawn}:
            expected[name] = isolated(partial(train, cfgs[name]), args.seconds, args.megabytes)
            if not isinstance(expected[name], dict):
                raise SystemExit(f"{name} does not train unchanged: {expected[name]}")
        cases = [
            (str(change), partial(judge, change, cfgs[change.source], expected[change.source]))
            for change in drawn
        ]
        return report(run_all(cases, args, "configs"), args.json)


if __name__ == "__main__":
    sys.exit(main())
