"""Write a thinking model as graphs (ONNX or torch.export) and check them on real images.

Each thinking stage and the decode head become separate graphs; tvit_seg/deploy/host.py, which needs
only NumPy and onnxruntime, gates between them. With --stage there is a single graph that always
exits after that stage. The tool fails unless all graphs agree with PyTorch.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from prettytable import PrettyTable
from torch import nn

import tvit_seg  # noqa: F401, first, since it reports missing packages
from tvit_seg.deploy import FORMATS, export
from tvit_seg.deploy.evaluate import evaluate, load_images, time_hosts
from tvit_seg.deploy.formats import quantize
from tvit_seg.engine.cli import ConfigOptions, friendly_errors, read_config
from tvit_seg.engine.cli_weights import add_trust_argument
from tvit_seg.engine.config_check import building
from tvit_seg.errors import ConfigError
from tvit_seg.inference import load_model
from tvit_seg.models.gates.base import check_threshold
from tvit_seg.weights.io import trusting


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", nargs="?", help="checkpoint file; default: random weights")
    parser.add_argument(
        "--out-dir",
        type=Path,
        metavar="DIR",
        help="folder for the graphs (work_dirs/CONFIG/export)",
    )
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="file format (onnx)")
    parser.add_argument(
        "--stage", type=int, metavar="N", help="a single graph that always exits after stage N"
    )
    parser.add_argument("--threshold", type=float, help="gate threshold in nats (the config's)")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="image size of the graphs, one or H W; default: the sliding window, else the first "
        "image's size after the test pipeline",
    )
    sizes.add_argument(
        "--dynamic-size", action="store_true", help="graphs for any image size (ThinkingViT)"
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="images to check with (the validation set)"
    )
    parser.add_argument(
        "--num-images", type=int, default=8, metavar="N", help="number of these (8)"
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="also write int8 graphs, in DIR/int8; implies --evaluate",
    )
    parser.add_argument(
        "--reduce-range",
        action="store_true",
        help="int8 weights of 7 bits, for x86 processors without VNNI",
    )
    parser.add_argument(
        "--evaluate",
        type=int,
        nargs="?",
        const=0,
        metavar="N",
        help="mIoU (accuracy) of model and graphs on the first N validation images (all)",
    )
    parser.add_argument(
        "--benchmark",
        type=int,
        nargs="?",
        const=8,
        metavar="BATCH",
        help="time the host loop with all, half and no early exits, in batches of BATCH (8)",
    )
    parser.add_argument("--rounds", type=int, default=9, help="rounds of the benchmark (9)")
    parser.add_argument(
        "--threads", type=int, help="threads of the benchmark (the runtimes' default)"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action=ConfigOptions, default={}, metavar="KEY=VALUE"
    )
    add_trust_argument(parser)
    args = parser.parse_args(argv)
    if args.size is not None and (len(args.size) > 2 or min(args.size) < 1):
        parser.error(f"--size {args.size} must be one or two lengths in pixels")
    for name, least in (
        ("num_images", 1), ("rounds", 1), ("threads", 1), ("benchmark", 1), ("evaluate", 0),
    ):  # fmt: skip
        value = getattr(args, name)
        if value is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} {value} must be at least {least}")
    if args.benchmark is not None and args.stage is not None:
        parser.error("--benchmark compares thresholds, and --stage has none")
    if args.int8 and args.format != "onnx":
        parser.error("--int8 needs --format onnx")
    if args.reduce_range and not args.int8:
        parser.error("--reduce-range needs --int8")
    if args.int8 and args.evaluate is None:
        args.evaluate = 0
    return args


def load(args: argparse.Namespace, cfg: Config) -> nn.Module:
    with building(cfg):
        model, _ = load_model(cfg, args.checkpoint)
    gate = model.backbone.gate
    for name in ("threshold", "benchmark"):
        if getattr(args, name) is not None and not hasattr(gate, "threshold"):
            raise ConfigError(f"--{name}: the config's {type(gate).__name__} has no threshold")
    if args.threshold is not None:
        gate.threshold = check_threshold(args.threshold)
    return model


def show_manifest(manifest: dict, folder: Path) -> None:
    size = manifest["size"]
    size = " x ".join(map(str, size)) if size else f"any, by {manifest['size_divisor']}"
    costs = ", ".join(f"{cost:.4g}" for cost in manifest["gmacs"])
    print(f"written to {folder}: {', '.join(manifest['inputs'])} ({manifest['format']})")
    print(f"images: any number; pixels: {size}")
    print(f"gate: {manifest['gate']}; GMACs when stopping at each stage: {costs}")
    count, difference = manifest["checked_images"], manifest["largest_difference"]
    print(f"largest difference from PyTorch on {count} images: {difference:.2g}")


def show_scores(scores: dict[str, float], name: str) -> None:
    table = PrettyTable(["weights and runtime", f"{name} (%)", "difference"])
    own = next(iter(scores.values()))
    for who, score in scores.items():
        table.add_row([who, f"{score:.2f}", f"{score - own:+.2f}".replace("-0.00", "+0.00")])
    print(table)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    folder = args.out_dir or Path("work_dirs", Path(args.config).stem, "export")
    with friendly_errors(), trusting(args.trust_checkpoint):
        cfg = read_config(args.config, args.cfg_options)
        if args.checkpoint is None:
            print("no checkpoint: the weights are random")
        model = load(args, cfg)
        images = load_images(cfg, args.images, args.num_images)
        size = args.size * 2 if args.size and len(args.size) == 1 else args.size
        if args.evaluate is not None:  # fails before the work where there is no validation set
            load_images(cfg, None, 1)
        manifest = export(
            model, cfg, folder, images, size, args.dynamic_size, args.stage, args.format
        )
        show_manifest(manifest, folder)
        if args.int8:
            quantize(folder, folder / "int8", args.reduce_range)
        if args.evaluate is None and args.benchmark is None:
            return
        kind = FORMATS[args.format]
        hosts = {args.format: kind(folder, args.threads)}
        if args.int8:
            hosts["onnx, int8"] = kind(folder / "int8", args.threads)
        if args.evaluate is not None:
            scores = evaluate(model, cfg, hosts, args.evaluate or None, args.stage)
            show_scores(scores, "mIoU" if hasattr(model, "decode_head") else "accuracy")
        if args.benchmark is not None:
            print(time_hosts(hosts, model, images, args.benchmark, args.rounds, args.threads))


if __name__ == "__main__":
    main()
