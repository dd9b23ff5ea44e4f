"""Measures speed and memory as ratios against other models on this machine.

Rows: (1) one stage alone against timm's model of that width, also with DINOv3's parts, (2) both
stages against mmseg's VisionTransformer of full width, (3) all images stop against all think, (4) a
batch of which half stops against the stages that its images run, (5) a training step against timm's
two, (6) a sweep over 13 thresholds against one evaluation, (7) sliding windows against mmseg's
Segmenter,
(8) segmentors at several exit shares against mmseg's Segmenter and timm's backbones, (9) Swin-S,
(10) stage 1 with token pruning against the same without, (11) segmentors with a nested mask head
against mmseg's, (12) labels of a photo found class by class, (13) UPerNet with Swin-S,
(14) what gates on pixels measure, (15) a whole test on photos against mmseg's.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import mmseg
import timm
import torch
from benchmarking.backbone_rows import backbone_rows
from benchmarking.decoding_rows import decoding_rows
from benchmarking.memory import peak_memory
from benchmarking.models import Setting
from benchmarking.photo_rows import photo_rows
from benchmarking.pruning_rows import pruning_rows
from benchmarking.rows import Row
from benchmarking.segmentor_rows import segmentor_rows
from benchmarking.swin_rows import swin_rows
from tqdm import tqdm

import tvit_seg
from tvit_seg.engine.cli import check_device, friendly_errors
from tvit_seg.utils.timing import alternate, compare, machine, spread

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
GROUPS = range(1, 16)
DTYPES = ("float32", "bfloat16")


def choose_rows(setting: Setting, groups: list[int]) -> list[Row]:
    parts = (backbone_rows, segmentor_rows, swin_rows, pruning_rows, decoding_rows, photo_rows)
    rows = [row for part in parts for row in part(setting)]
    return [row for row in rows if row.group in groups]


def measure(
    row: Row, setting: Setting, args: argparse.Namespace, tick: Callable[[], object]
) -> dict:
    """Times a row; the result is ready for JSON."""
    contestants = row.contestants()
    clock = CLOCKS[args.clock]
    seconds = alternate(contestants, args.rounds, args.warmup, args.device, tick, clock)
    memory = {name: peak_memory(run, args.device) for name, run in contestants.items()}
    ratios = []
    for ratio in row.ratios:
        if not ratio.memory:
            value, iqr = compare(seconds, ratio.compute)
        elif all(memory.values()):
            value, iqr = ratio.compute(memory), 0.0
        else:  # unknown on this system
            continue
        target = ratio.target if setting.dtype == torch.float32 else None  # set for fp32
        passed = None if target is None else value <= target
        ratios.append(dict(name=ratio.name, ratio=value, iqr=iqr, target=target, passed=passed))
    times = {
        name: dict(median=median(all_), iqr=spread(all_), seconds=all_, peak_bytes=memory[name])
        for name, all_ in seconds.items()
    }
    return dict(row=row.group, ratios=ratios, times=times)


def table(results: list[dict]) -> str:
    width = max(len(ratio["name"]) for result in results for ratio in result["ratios"])
    lines = [
        f"row  {'what':{width}}  ratio   +-IQR  at most        median +-IQR in ms (peak in MB)"
    ]
    for result in results:
        for index, r in enumerate(result["ratios"]):
            verdict = "" if r["passed"] is None else "PASS" if r["passed"] else "FAIL"
            target = "" if r["target"] is None else f"{r['target']:.2f}"
            line = f"{result['row']:3}  {r['name']:{width}}  {r['ratio']:5.3f}  {r['iqr']:6.3f}  "
            line += f"{target:>7}  {verdict:4}"
            if index == 0:
                line += "  " + ", ".join(describe(*item) for item in result["times"].items())
            lines.append(line)
    return "\n".join(lines)


def describe(name: str, times: dict) -> str:
    peak = times["peak_bytes"]
    memory = "" if peak is None else f" ({peak / 2**20:.0f})"
    return f"{name} {1e3 * times['median']:.1f} +-{1e3 * times['iqr']:.1f}{memory}"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows", type=int, nargs="+", choices=GROUPS, default=list(GROUPS), metavar="N"
    )
    parser.add_argument("--rounds", type=int, default=15, help="counted rounds (15)")
    parser.add_argument("--warmup", type=int, default=2, help="warm-up rounds before (2)")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: processor time, steady while others use the cores; best with --threads 1 (wall)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads (torch's default)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        nargs="+",
        default=["float32"],
        help="data types, one after the other (float32)",
    )
    parser.add_argument(
        "--compile",
        choices=("no", "yes"),
        nargs="+",
        default=["no"],
        help="torch.compile for the blocks of all models: no, yes, or both in turn (no)",
    )
    parser.add_argument("--size", type=int, help="side of all images in pixels, for a quick run")
    parser.add_argument("--layers", type=int, default=12, help="blocks of every model (12)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all times as JSON")
    args = parser.parse_args(argv)
    for name, least in (("rounds", 1), ("warmup", 0), ("threads", 1), ("size", 1), ("layers", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            parser.error(f"--{name} must be at least {least}")
    with friendly_errors():
        check_device(args.device)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    settings = [
        Setting(args.device, getattr(torch, dtype), compiled == "yes", args.layers, args.size)
        for dtype in args.dtype
        for compiled in args.compile
    ]
    total = sum(len(choose_rows(setting, args.rows)) for setting in settings)
    measured = []
    with tqdm(total=total * (args.warmup + args.rounds), unit="round") as bar:
        for setting in settings:
            rows = choose_rows(setting, args.rows)
            results = [measure(row, setting, args, bar.update) for row in rows]
            conditions = {
                **machine(args.device),
                "device": args.device,
                "dtype": str(setting.dtype).removeprefix("torch."),
                "compile": setting.compile,
                "versions": {m.__name__: m.__version__ for m in (torch, timm, mmseg, tvit_seg)},
                **{n: getattr(args, n) for n in ("clock", "rounds", "warmup", "layers", "size")},
            }
            measured.append(dict(conditions=conditions, rows=results))
            bar.write(", ".join(f"{name} {value}" for name, value in conditions.items()))
            bar.write(table(results))
            if args.json is not None:  # keeps the results if the next setting fails
                args.json.write_text(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
