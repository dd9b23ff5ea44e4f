"""Count decisions that change with an image's batch.

Predicts random images one by one, in batches of several sizes, and shuffled, and compares image
classes, exit stages and pixel classes with those of the first arrangement. A floating point sum
depends on its order, which a kernel may choose by the batch size; decisions may change only where
the two best classes are closer than that rounding error.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor
from tqdm import tqdm

from tvit_seg import ThinkingEncoderDecoder
from tvit_seg.inference import load_model

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py"
DECISIONS = ("image classes", "exit stages", "pixel classes")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=CONFIG, help="of a segmentor (quickstart)")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints/quickstart.pth")
    parser.add_argument("--images", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--size", type=int, default=32, help="side in pixels (32)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 7, 32], help="(1 7 32)")
    parser.add_argument("--seed", type=int, default=0, help="of the images (0)")
    return parser.parse_args(argv)


def random_images(count: int, size: int, seed: int) -> Tensor:
    """Noise of every coarseness and contrast, (count, 3, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.empty(count, 3, size, size)
    for image in images:
        side = int(torch.randint(2, size + 1, (), generator=generator))
        noise = torch.randn(1, 3, side, side, generator=generator)
        strength = 3 * torch.rand((), generator=generator)
        image.copy_(strength * F.interpolate(noise, size=(size, size), mode="bilinear")[0])
    return images


def arrangements(count: int, batches: list[int], seed: int) -> Iterator[tuple[str, list[Tensor]]]:
    """Name and batches of image numbers; the last one is in random order."""
    for size in batches:
        yield f"batches of {size}", list(torch.arange(count).split(size))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    yield f"shuffled, batches of {batches[-1]}", list(order.split(batches[-1]))


@torch.no_grad()
def decide(model: ThinkingEncoderDecoder, images: Tensor, batches: list[Tensor]) -> dict:
    """Decisions in the order of the images, and the highest logit and margin of each pixel."""
    parts = []
    for index in tqdm(batches, file=sys.stderr):
        thought = model.think(images[index])
        best = thought.seg_logits.topk(2, dim=1)
        classes = (thought.logits.argmax(1), thought.exit_stage, best.indices[:, 0].byte())
        parts.append((*classes, best.values[:, 0], best.values[:, 0] - best.values[:, 1]))
    order = torch.cat(batches).argsort()
    columns = [torch.cat(column)[order] for column in zip(*parts, strict=True)]
    return dict(zip((*DECISIONS, "highest", "margins"), columns, strict=True))


def compare(first: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, float]:
    margins = first["margins"][first["pixel classes"] != other["pixel classes"]]
    return {
        **{name: int((first[name] != other[name]).sum()) for name in DECISIONS},
        "largest change of a logit": float((first["highest"] - other["highest"]).abs().max()),
        "largest margin of a flipped pixel": float(margins.max()) if len(margins) else 0.0,
    }


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    model, _ = load_model(Config.fromfile(args.config), args.checkpoint)
    images = random_images(args.images, args.size, args.seed)
    first, found = None, {}
    for name, batches in arrangements(args.images, args.batches, args.seed):
        decisions = decide(model, images, batches)
        if first is None:
            first = decisions
        else:
            found[name] = compare(first, decisions)
    flips = {name: sum(row[name] for row in found.values()) for name in DECISIONS}
    figures = dict(
        images=args.images,
        pixels=first["pixel classes"].numel(),
        stopped_early=int((first["exit stages"] == 0).sum()),
        smallest_margin=float(first["margins"].min()),
        flips=flips,
        arrangements=found,
    )
    print(json.dumps(figures, indent=2))
    return int(any(flips.values()))


if __name__ == "__main__":
    sys.exit(main())
