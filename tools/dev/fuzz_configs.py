"""Changes fields of shipped configs, half of them to nonsense, and trains and validates with each.

A change must show: in an error that names the field or its value, or in what was built from the
config or came of it. Models are cut to a few blocks, data to a handful of made-up images.
"""

import argparse
import copy
import math
import re
import sys
import tempfile
from functools import partial
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from config_changes import MISSING, Change, draw
from fuzzing import Verdict, add_limits, isolated, report, run_all
from mmengine.config import Config
from mmengine.runner import Runner

import tvit_seg  # noqa: F401, registers everything
from tvit_seg.datasets.scenes import write_scenes
from tvit_seg.engine.train import train

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

LIKE_BEFORE = {
    r"^(env_cfg|visualizer|log_level|log_processor)": "how the machine runs and what it says",
    r"num_workers|persistent_workers|drop_last|prefetch": "how data is loaded, not which",
    r"meta_keys": "what is handed on",
    r"^auto_scale_lr": "the batch is another one here",
}
"""Fields that may change without a trace in what was built, and why."""
CLOCKS = ("t", "time_sec_tot", "_timestamp")
"""Attributes that no two trainings share."""

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
    if "ade20k" in path.name or "imagenet" in path.name:
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
        if key in ("img_size", "input_size", "size", "crop_size", "stride", "scale") and value:
            part[key] = tuple(int(length) // 8 for length in value)
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                shrink(inner)


def result(cfg: Config) -> dict[str, Any]:
    """What a training leaves behind, as far as it can be compared; errors as in tools/train.py."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = copy.deepcopy(cfg)
        if isinstance(cfg.get("work_dir"), str):
            cfg.work_dir = folder
        cfg.runner_type = "ThinkingRunner"
        runner = train(cfg)
        metrics = runner.val_loop.run()
    hub = runner.message_hub
    losses = {
        name: [float(f"{x:.5g}") for x in values.data[0]]  # the rest is noise
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
    """Kind and plain attributes of something that was built.

    What only holds configs, which nobody may read, is left out.
    """
    if isinstance(part, list):
        return str([{k: v for k, v in group.items() if k != "params"} for group in part])
    kept = {
        name: value
        for name, value in vars(part).items()
        if plain(value) and name not in CLOCKS and not name.endswith("cfg")
        if not (isinstance(part, torch.nn.Module) and name.startswith("_"))
        if not (isinstance(part, Runner) and isinstance(value, (dict, list)))
    }
    for name, value in vars(part).items():  # what is not built from a config of its own
        package = type(value).__module__.partition(".")[0]
        if package == "torchvision":
            kept[name] = str(value)
        elif package == "timm" and not isinstance(value, torch.nn.Module):
            kept[name] = portrait(value)
    extra = part.extra_repr() if isinstance(part, torch.nn.Module) else ""
    return re.sub(r"\d{8}_\d{6}| at 0x\w+", "", f"{type(part).__name__} {extra} {kept}")


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
        found = result(change.apply(cfg))
    except SystemExit as error:
        text = str(error)
        return ("refused" if change.is_named(text) else "unclear"), text
    if not finite(found["losses"]) or not found["weights"]:
        return "silent", "losses or weights that are not finite"
    if repr(found) != repr(expected):  # NaN is not equal to itself
        return "right", f"another result: {difference(found, expected)}"
    if change.value in (MISSING, None):
        return "right", "the same result: this is the default"
    why = next((why for p, why in LIKE_BEFORE.items() if re.search(p, change.field)), None)
    return ("right", f"the same result: {why}") if why else ("silent", "the same result")


def difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The first thing in which two results differ."""
    for key, value in found.items():
        if repr(value) == repr(expected[key]):
            continue
        if key == "built":
            pairs = zip_longest(value, expected[key], fillvalue="nothing")
            return " / ".join(next(pair for pair in pairs if pair[0] != pair[1]))
        return f"{key} {value} / {expected[key]}"
    return "none"


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
        drawn = draw(cfgs, SOURCES, args.cases, args.seed)
        expected = {}
        for name in sorted({change.source for change in drawn}):
            runs = [
                isolated(partial(result, cfgs[name]), args.seconds, args.megabytes) for _ in "ab"
            ]
            if not isinstance(runs[0], dict):
                raise SystemExit(f"{name} does not train unchanged: {runs[0]}")
            if repr(runs[0]) != repr(runs[1]):  # then all changes would seem to have an effect
                raise SystemExit(f"{name} does not train the same way: {difference(*runs)}")
            expected[name] = runs[0]
        cases = [
            (str(change), partial(judge, change, cfgs[change.source], expected[change.source]))
            for change in drawn
        ]
        return report(run_all(cases, args, "configs"), args.json)


if __name__ == "__main__":
    sys.exit(main())
