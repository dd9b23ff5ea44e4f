"""Measures the speed of thinking stages, as ratios against other models on this machine.

Rows: (1) one stage alone against timm's model of that width, (2) both stages against mmseg's
VisionTransformer of full width, (3) all images stop against all think, (4) half of a batch stops
against what the stages cost that its images run.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import mmseg
import timm
import torch
from mmseg.models.backbones import VisionTransformer
from torch import Tensor, nn
from tqdm import tqdm

import tvit_seg
from tvit_seg import EntropyGate, FixedGate, ThinkingViT
from tvit_seg.timing import Contestants, Row, alternate, compare, machine, spread, waiter

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
HEADS = (3, 6)
TIMM_MODELS = ("deit_tiny_patch16_224", "deit_small_patch16_224")  # as wide as each stage


@dataclass(frozen=True)
class Setting:
    """What all rows share.

    Attributes:
        device: Where to run.
        layers: Blocks of every model.
        size: Side of the images in pixels in place of each row's own.
    """

    device: str = "cpu"
    layers: int = 12
    size: int | None = None


def build_rows(setting: Setting) -> Iterator[Row]:
    small, large = (setting.size or size for size in (224, 512))
    for size, batch in ((small, 8), (large, 1)):
        for stage, other in enumerate(TIMM_MODELS):
            yield Row(
                1,
                f"stage {stage + 1} / {other.removesuffix('_patch16_224')}, {_shape(size, batch)}",
                1.10,
                partial(stage_alone, setting, size, batch, stage),
                lambda t: t["stage"] / t["timm"],
            )
    yield Row(
        2,
        f"both stages / mmseg ViT, {_shape(large, 1)}",
        0.90,
        partial(both_stages, setting, large, 1),
        lambda t: t["both stages"] / t["mmseg"],
    )
    yield Row(
        3,
        f"all stop / all think, {_shape(large, 1)}",
        0.30,
        partial(early_exit, setting, large, 1),
        lambda t: t["all stop"] / t["all think"],
    )
    yield Row(
        4,
        f"half stop / stage 1 + half stage 2, {_shape(small, 8)}",
        1.10,
        partial(early_exit, setting, small, 8, half=True),
        # all stop + (all think - all stop) / 2
        lambda t: 2 * t["half stop"] / (t["all stop"] + t["all think"]),
    )


def stage_alone(setting: Setting, size: int, batch: int, stage: int) -> Contestants:
    """A stage given the one before, against timm: each from images to norm and head."""
    ours = _thinking_vit(setting, size, num_classes=1000)
    theirs = timm.create_model(TIMM_MODELS[stage], img_size=size, depth=setting.layers)
    theirs = _prepare(theirs, setting)
    images = _images(setting, size, batch)
    embedding = tokens = None
    for earlier in range(stage):
        embedding = ours.embed(images, earlier, embedding)
        tokens = ours.run_stage(earlier, embedding, tokens, images.shape[-2:]).tokens

    def run_stage() -> object:
        return ours.run_stage(
            stage, ours.embed(images, stage, embedding), tokens, images.shape[-2:]
        )

    return {
        "stage": run_stage,
        "timm": lambda: theirs.forward_head(theirs.forward_features(images)),
    }


def both_stages(setting: Setting, size: int, batch: int) -> Contestants:
    """Backbones without a head; ours always thinks to the end.

    At 512 pixels mmseg writes attention maps of 25 MB. Where the C allocator happens to hand them
    back to the system each time, which varies from process to process, mmseg takes 1.4 x as long.
    """
    ours = _thinking_vit(setting, size)
    theirs = VisionTransformer(
        img_size=size,
        embed_dims=ours.embed_dims,
        num_layers=setting.layers,
        num_heads=HEADS[-1],
        patch_bias=True,
        final_norm=True,
    )
    theirs = _prepare(theirs, setting)
    images = _images(setting, size, batch)
    return {
        "both stages": partial(ours.think, images, FixedGate(-1)),
        "mmseg": partial(theirs, images),
    }


def early_exit(setting: Setting, size: int, batch: int, half: bool = False) -> Contestants:
    """The exit loop with an entropy gate that all images pass, none, or half of them."""
    ours = _thinking_vit(setting, size, num_classes=1000)
    images = _images(setting, size, batch)
    thresholds = {"all stop": 1e9, "all think": 0.0}
    if half:
        seen = ours.think(images, EntropyGate(1e9)).entropy[:, 0]
        thresholds["half stop"] = seen.quantile(0.5).item()  # midway between the two in the middle
    gates = {name: EntropyGate(threshold) for name, threshold in thresholds.items()}
    stopping = {"all stop": batch, "all think": 0, "half stop": batch // 2}
    for name, gate in gates.items():
        stopped = (ours.think(images, gate).exit_stage == 0).sum().item()
        if stopped != stopping[name]:
            raise RuntimeError(f"{stopped} of {batch} images stop where {name} was meant")
    return {name: partial(ours.think, images, gate) for name, gate in gates.items()}


def measure(row: Row, args: argparse.Namespace, tick: Callable[[], object]) -> dict:
    """Times a row; the result is ready for JSON."""
    synchronize = waiter(args.device)
    clock = CLOCKS[args.clock]
    seconds = alternate(row.contestants(), args.rounds, args.warmup, synchronize, tick, clock)
    ratio, ratio_iqr = compare(seconds, row.ratio)
    return {
        "row": row.group,
        "name": row.name,
        "ratio": ratio,
        "ratio_iqr": ratio_iqr,
        "target": row.target,
        "passed": ratio <= row.target,
        "times": {
            name: {"median": median(times), "iqr": spread(times), "seconds": times}
            for name, times in seconds.items()
        },
    }


def table(results: list[dict]) -> str:
    width = max(len(result["name"]) for result in results)
    lines = [f"row  {'what':{width}}  ratio   +-IQR  at most        median +-IQR in ms"]
    for r in results:
        times = ", ".join(
            f"{name} {1e3 * t['median']:.1f} +-{1e3 * t['iqr']:.1f}"
            for name, t in r["times"].items()
        )
        lines.append(
            f"{r['row']:3}  {r['name']:{width}}  {r['ratio']:5.3f}  {r['ratio_iqr']:6.3f}  "
            f"{r['target']:7.2f}  {'PASS' if r['passed'] else 'FAIL'}  {times}"
        )
    return "\n".join(lines)


def _thinking_vit(setting: Setting, size: int, num_classes: int = 0) -> ThinkingViT:
    options = dict(num_layers=setting.layers, thinking_stages=HEADS, num_classes=num_classes)
    return _prepare(ThinkingViT(img_size=size, **options), setting)


def _prepare(model: nn.Module, setting: Setting) -> nn.Module:
    model.eval()  # mmseg's returns nothing
    return model.to(setting.device)


def _images(setting: Setting, size: int, batch: int) -> Tensor:
    return torch.randn(batch, 3, size, size).to(setting.device)


def _shape(size: int, batch: int) -> str:
    return f"{size} px, batch {batch}"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", choices=range(1, 5), default=[1, 2, 3, 4])
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count (15)")
    parser.add_argument("--warmup", type=int, default=2, help="rounds before them (2)")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: processor time, steady while others use the cores; best with --threads 1 (wall)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads (torch's own choice)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--size", type=int, help="side of all images in pixels, for a quick look")
    parser.add_argument("--layers", type=int, default=12, help="blocks of every model (12)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time there")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows = build_rows(Setting(args.device, args.layers, args.size))
    rows = [row for row in rows if row.group in args.rows]
    conditions = {
        **machine(args.device),
        "device": args.device,
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "versions": {m.__name__: m.__version__ for m in (torch, timm, mmseg, tvit_seg)},
        **{name: getattr(args, name) for name in ("clock", "rounds", "warmup", "layers", "size")},
    }
    total = len(rows) * (args.warmup + args.rounds)
    with torch.inference_mode(), tqdm(total=total, unit="round") as bar:
        results = [measure(row, args, bar.update) for row in rows]
    print(", ".join(f"{name} {value}" for name, value in conditions.items()))
    print(table(results))
    if args.json is not None:
        args.json.write_text(json.dumps({"conditions": conditions, "rows": results}, indent=2))


if __name__ == "__main__":
    main()
