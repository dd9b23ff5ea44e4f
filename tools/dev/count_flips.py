"""Counts decisions that change with the batch an image is in.

Predicts random images one by one, in batches of several sizes, and shuffled, and compares with the
first arrangement: classes of images, exit stages, classes of pixels. A sum in floating point
depends on its order, and a kernel may choose the order by the size of the batch; what may change
are decisions whose two best classes are closer than that.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor
from tqdm import tqdm

from tvit_seg import ThinkingEncoderDecoder
from tvit_seg.weights.load import load_pretrained

ROOT = Path(__file__).parents[2]
DECISIONS = ("image classes", "exit stages", "pixel classes")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    config = ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py"
    parser.add_argument("--config", type=Path, default=config, help="of a segmentor (quickstart)")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints/quickstart.pth")
    parser.add_argument("--images", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--size", type=int, default=32, help="side in pixels (32)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 7, 32], help="(1 7 32)")
    parser.add_argument("--seed", type=int, default=0, help="of the images (0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures go there")
    return parser.parse_args(argv)


def random_images(count: int, size: int, seed: int) -> Tensor:
    """Noise of every coarseness and contrast, (count, 3, size, size)."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.empty(count, 3, size, size)
    for i in range(count):
        side = int(torch.randint(2, size + 1, (), generator=draw))
        noise = torch.randn(1, 3, side, side, generator=draw)
        strength = 3 * torch.rand((), generator=draw)
        images[i] = strength * F.interpolate(noise, size=(size, size), mode="bilinear")[0]
    return images


def build(config: Path, checkpoint: Path) -> ThinkingEncoderDecoder:
    cfg = Config.fromfile(config)
    init_default_scope("mmseg")
    model = MODELS.build(cfg.model)
    load_pretrained(model, str(checkpoint))
    return model.eval()


def arrangements(count: int, batches: list[int], seed: int) -> Iterator[tuple[str, list[Tensor]]]:
    """Name and batches of image numbers; the last one is in random order."""
    for size in batches:
        yield f"batches of {size}", list(torch.arange(count).split(size))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    yield f"shuffled, batches of {batches[-1]}", list(order.split(batches[-1]))


@torch.no_grad()
def decide(
    model: ThinkingEncoderDecoder, images: Tensor, batches: list[Tensor], name: str
) -> dict[str, Tensor]:
    """All decisions, in the order of the images, and the logits and margins of pixels."""
    shape = images.shape[:1] + images.shape[2:]
    found = {
        "image classes": torch.empty(len(images), dtype=torch.int16),
        "exit stages": torch.empty(len(images), dtype=torch.int16),
        "pixel classes": torch.empty(shape, dtype=torch.uint8),
        "highest": torch.empty(shape),
        "margins": torch.empty(shape),
    }
    with tqdm(total=len(images), desc=name, file=sys.stderr) as bar:
        for index in batches:
            thought = model.think(images[index])
            best = thought.seg_logits.topk(2, dim=1).values
            found["image classes"][index] = thought.logits.argmax(1).short()
            found["exit stages"][index] = thought.exit_stage.short()
            found["pixel classes"][index] = thought.seg_logits.argmax(1).byte()
            found["highest"][index] = best[:, 0]
            found["margins"][index] = best[:, 0] - best[:, 1]
            bar.update(len(index))
    return found


def compare(first: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, float]:
    flips = {name: int((first[name] != other[name]).sum()) for name in DECISIONS}
    flipped = first["pixel classes"] != other["pixel classes"]
    margins = first["margins"][flipped]
    return {
        **flips,
        "largest change of a logit": float((first["highest"] - other["highest"]).abs().max()),
        "largest margin of a flipped pixel": float(margins.max()) if len(margins) else 0.0,
    }


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    model = build(args.config, args.checkpoint)
    images = random_images(args.images, args.size, args.seed)
    first, flips, found = None, Counter(), {}
    for name, batches in arrangements(args.images, args.batches, args.seed):
        decisions = decide(model, images, batches, name)
        if first is None:
            first = decisions
            continue
        found[name] = compare(first, decisions)
        flips.update({key: found[name][key] for key in DECISIONS})
    figures = dict(
        images=args.images,
        pixels=first["pixel classes"].numel(),
        stopped_early=int((first["exit stages"] == 0).sum()),
        smallest_margin=float(first["margins"].min()),
        flips=dict(flips),
        arrangements=found,
    )
    print(json.dumps(figures, indent=2))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=2))
    return int(any(flips.values()))


if __name__ == "__main__":
    sys.exit(main())
