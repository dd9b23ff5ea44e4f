"""Segments images or a video and draws the exit stage of each image or window."""

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from mmengine.runner.amp import autocast
from prettytable import PrettyTable
from tqdm import tqdm

import tvit_seg  # noqa: F401, first, since it reports missing packages
from tvit_seg import ThinkingEncoderDecoder
from tvit_seg.datasets.images import PICTURES, find_pictures, to_picture
from tvit_seg.engine.cli import ConfigOptions, check_device, friendly_errors, read_config
from tvit_seg.engine.cli_weights import add_trust_argument
from tvit_seg.engine.config_check import building
from tvit_seg.errors import ConfigError, DataError
from tvit_seg.inference import Predictor
from tvit_seg.utils.checks import check, check_number
from tvit_seg.visualization import ThinkingVisualizer
from tvit_seg.weights.io import trusting

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py"
CHECKPOINT = ROOT / "checkpoints/quickstart.pth"
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path, help="image, folder of images, or video")
    parser.add_argument("config", nargs="?", help="config file (the quickstart's)")
    parser.add_argument("checkpoint", nargs="?", help="checkpoint file (the quickstart's)")
    parser.add_argument(
        "--out-dir", type=Path, default=Path("work_dirs/demo_out"), metavar="DIR",
        help="output folder (work_dirs/demo_out)",
    )  # fmt: skip
    parser.add_argument("--threshold", type=float, help="gate threshold in nats (the config's)")
    parser.add_argument("--amp", action="store_true", help="run in mixed precision")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument(
        "--opacity", type=float, default=1.0, help="opacity of the class colours (1)"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action=ConfigOptions, default={}, metavar="KEY=VALUE"
    )
    add_trust_argument(parser)
    args = parser.parse_args(argv)
    if (args.config is None) != (args.checkpoint is None):
        parser.error("a config needs its checkpoint")
    if not 0 <= args.opacity <= 1:
        parser.error(f"--opacity {args.opacity} must lie in [0, 1]")
    return args


def load(args: argparse.Namespace) -> Predictor:
    check_device(args.device)
    config = args.config or CONFIG
    cfg = read_config(config, args.cfg_options)
    with building(cfg):
        predictor = Predictor(cfg, args.checkpoint or CHECKPOINT, args.device)
    if not isinstance(predictor.model, ThinkingEncoderDecoder):
        kind = type(predictor.model).__name__
        raise ConfigError(f"{config}: a {kind} records no exits to draw")
    if args.threshold is not None:
        gate = predictor.model.backbone.gate
        kind = type(gate).__name__
        check(hasattr(gate, "threshold"), "--threshold", args.threshold, f"left out for a {kind}")
        gate.threshold = check_number("--threshold", args.threshold)
    return predictor


class Sketcher:
    """Draws results and counts their exits and cost."""

    def __init__(self, predictor: Predictor, opacity: float):
        self.predictor = predictor
        self.visualizer = ThinkingVisualizer(alpha=opacity)
        self.visualizer.dataset_meta = predictor.dataset_meta
        self.exits: list[int] = []
        self.gmacs: list[float] = []

    def draw(self, image: np.ndarray | Path) -> np.ndarray:
        """Segment a BGR array or a file."""
        result = self.predictor(image)
        picture = to_picture(self.predictor.read(image) if isinstance(image, Path) else image)
        self.exits += result.exit_stage.reshape(-1).tolist()
        self.gmacs.append(result.gmacs)
        return mmcv.rgb2bgr(self.visualizer.paint(mmcv.bgr2rgb(picture), result))

    def summary(self) -> str:
        table = PrettyTable(["stage", "stopped there", "share (%)"])
        for stage in range(self.predictor.model.num_stages):
            count = self.exits.count(stage)
            table.add_row([stage, count, f"{100 * count / len(self.exits):.1f}"])
        return f"{table}\naverage GMACs of a picture: {np.mean(self.gmacs):.4g}"


def draw_pictures(paths: list[Path], root: Path, out_dir: Path, draw: Callable) -> None:
    for path in tqdm(paths, desc="pictures"):
        target = out_dir / path.relative_to(root)
        if path.suffix.lower() not in PICTURES:
            target = target.with_name(f"{path.name}.png")
        mmcv.imwrite(draw(path), str(target))


def open_video(path: Path) -> mmcv.VideoReader:
    frames = mmcv.VideoReader(str(path))
    if not frames.opened or not len(frames):
        raise DataError(f"{path} cannot be read as a video")
    return frames


def draw_video(frames: mmcv.VideoReader, target: Path, draw: Callable) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    for frame in tqdm(frames, desc="frames"):
        drawn = draw(frame)
        if writer is None:
            codec, size = cv2.VideoWriter_fourcc(*"mp4v"), drawn.shape[1::-1]
            writer = cv2.VideoWriter(str(target), codec, frames.fps or 25, size)
            if not writer.isOpened():
                raise OSError(f"{target} cannot be written as a video")
        writer.write(drawn)
    writer.release()


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with friendly_errors(), trusting(args.trust_checkpoint):
        if not args.input.exists():
            raise FileNotFoundError(f"{args.input} does not exist")
        video = open_video(args.input) if args.input.suffix.lower() in VIDEOS else None
        sketcher = Sketcher(load(args), args.opacity)
        if video is None:
            endings = (*PICTURES, sketcher.predictor.img_suffix.lower())
            folder = args.input.is_dir()
            paths = find_pictures(args.input, endings) if folder else [args.input]
            for path in paths:
                sketcher.predictor.read(path)  # bad ones end here, before work starts
        with autocast(torch.device(args.device).type, enabled=args.amp):
            if video is not None:
                target = args.out_dir / f"{args.input.stem}.mp4"
                draw_video(video, target, sketcher.draw)
            else:
                root = args.input if args.input.is_dir() else args.input.parent
                draw_pictures(paths, root, args.out_dir, sketcher.draw)
    print(sketcher.summary())
    print(f"written to {args.out_dir}")


if __name__ == "__main__":
    main()
