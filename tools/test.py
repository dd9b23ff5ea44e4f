"""Tests a segmentor or a classifier: metrics, and on request label maps and painted images."""

import argparse
import os
from pathlib import Path

import tvit_seg  # noqa: F401, first, since it reports missing packages
from tvit_seg.datasets.check import loads_labels, require_data
from tvit_seg.datasets.corrupt import unwrap_config
from tvit_seg.engine.cli import add_common_arguments, build_runner, friendly_errors, load_config
from tvit_seg.engine.distributed import close_distributed
from tvit_seg.errors import ConfigError
from tvit_seg.weights.io import read_checkpoint, trusting


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    add_common_arguments(parser)
    parser.add_argument("--out", metavar="DIR", help="save predicted label maps as PNG in DIR")
    painted = parser.add_mutually_exclusive_group()
    painted.add_argument("--show", action="store_true", help="show painted images in a window")
    painted.add_argument("--show-dir", metavar="DIR", help="save painted images in DIR")
    parser.add_argument("--wait-time", type=float, default=2, help="seconds per image for --show")
    parser.add_argument("--tta", action="store_true", help="average over augmented images")
    parser.add_argument("--amp", action="store_true", help="run in mixed precision")
    return parser.parse_args()


def paint(cfg: dict, args: argparse.Namespace) -> None:
    """Make the hook paint every image and show or save it."""
    hook = {"type": "SegVisualizationHook", **cfg.get("default_hooks", {}).get("visualization", {})}
    hook.update(draw=True, interval=1, show=args.show, wait_time=args.wait_time)
    visualizer = {"type": "SegLocalVisualizer", **cfg.get("visualizer", {})}
    if args.show_dir:
        # By default mmengine would save to <folder>/vis_data/vis_image.
        backend = {"type": "PictureBackend", "save_dir": args.show_dir, "img_save_dir": ""}
        visualizer.update(save_dir=args.show_dir, vis_backends=[backend])
    cfg.merge_from_dict({"default_hooks": {"visualization": hook}})
    cfg.visualizer = visualizer


def require_segmentor(cfg: dict, option: str) -> None:
    """Raise ConfigError unless the model predicts label maps."""
    if "decode_head" not in cfg.model:
        raise ConfigError(f"{option} needs label maps, but {cfg.model.get('type')} makes none")


def use_tta(cfg: dict) -> None:
    """Replace model and pipeline by those for test-time augmentation."""
    absent = [key for key in ("tta_model", "tta_pipeline") if key not in cfg]
    if absent:
        raise ConfigError(f"--tta needs {' and '.join(absent)} in the config {cfg.filename}")
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.tta_model.module = cfg.model
    cfg.model = cfg.tta_model


def without_labels(steps: list) -> list:
    """Leave out the steps of a (nested) pipeline that load labels."""
    kept: list = []
    for step in steps:
        if isinstance(step, list | tuple):
            kept += [inner] if (inner := without_labels(step)) else []
        elif not str(step["type"]).endswith("LoadAnnotations"):
            inner = dict(transforms=without_labels(step.transforms)) if "transforms" in step else {}
            kept.append(dict(step, **inner))
    return kept


def save_predictions(cfg: dict, folder: str) -> None:
    """Make the (first) evaluator write label maps."""
    evaluators(cfg)[0].update(output_dir=folder, keep_results=True)
    Path(folder).mkdir(parents=True, exist_ok=True)  # the metric makes it in one process only


def evaluators(cfg: dict) -> list[dict]:
    given = cfg.test_evaluator
    return list(given) if isinstance(given, list | tuple) else [given]


def do_without_labels(cfg: dict) -> None:
    """Let metrics of label maps save predictions only, and nothing load labels."""
    for metric in evaluators(cfg):
        if str(metric["type"]).endswith("IoUMetric"):
            if "output_dir" not in metric:
                raise ConfigError("the test data has no labels to compare with: add --out DIR")
            metric.format_only = True
    for part in unwrap_config(cfg.test_dataloader.dataset):
        if "pipeline" in part:
            part["pipeline"] = without_labels(part["pipeline"])


def main() -> None:
    args = parse_args()
    with friendly_errors(), trusting(args.trust_checkpoint):
        cfg = load_config(args)
        checkpoint = read_checkpoint(args.checkpoint)  # a bad one ends here
        require_data(cfg)
        labelled = loads_labels(cfg)
        cfg.load_from, cfg.resume = args.checkpoint, False
        if args.show and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise ConfigError("--show needs a display; --show-dir DIR saves the images")
        for option in ("show", "show_dir", "tta", "out"):
            if getattr(args, option):  # before the model is one of several views
                require_segmentor(cfg, f"--{option.replace('_', '-')}")
        if args.show or args.show_dir:
            paint(cfg, args)
        if args.amp:
            cfg.test_cfg.fp16 = True  # mmengine's name for autocast, bfloat16 on the CPU
        if args.tta:
            use_tta(cfg)
        if args.out:
            save_predictions(cfg, args.out)
        if not labelled:
            do_without_labels(cfg)
        runner = build_runner(cfg, checkpoint)
        runner.test()
    close_distributed(runner)


if __name__ == "__main__":
    main()
