"""Trains for hours and watches memory, throughput and the number of checkpoints.

Ends with an error if memory grows, or if more checkpoints lie there than are to be kept.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from matplotlib.figure import Figure
from tqdm import tqdm

from tvit_seg.engine.cli import latest_checkpoint
from tvit_seg.weights.io import read_checkpoint

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py"
WARMUP = 0.1  # share of the time that does not count
KEPT = 2  # checkpoints, beside the best weights


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", nargs="?", default=str(CONFIG), help="config (the quickstart's)")
    parser.add_argument("--hours", type=float, default=2.0, help="how long (2)")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between looks (10)")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/soak"), metavar="DIR")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--most-mb-per-hour", type=float, default=20.0, help="growth that is no error (20)"
    )
    args = parser.parse_args(argv)
    if args.hours <= 0 or args.every <= 0:
        parser.error("--hours and --every must be above 0")
    return args


def start(args: argparse.Namespace) -> subprocess.Popen:
    """A training without end that validates and saves now and then."""
    endless = ["train_cfg.max_iters=100000000", "train_cfg.val_interval=200"]
    endless += ["default_hooks.checkpoint.interval=100", "default_hooks.logger.interval=20"]
    command = [sys.executable, ROOT / "tools/train.py", args.config, "--work-dir", args.work_dir]
    args.work_dir.mkdir(parents=True, exist_ok=True)
    with (args.work_dir / "soak.log").open("w") as log:
        return subprocess.Popen(
            [*map(str, command), "--cfg-options", *endless, *args.cfg_options],
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def look(process: psutil.Process, work_dir: Path) -> dict[str, float]:
    """Resident memory of the training and its loading processes, what they did, their files."""
    family = [process, *process.children(recursive=True)]
    # not their private memory: that of a forked process grows as others write to what they shared
    memory = sum(map(_resident, family))
    times = process.cpu_times()
    logs = sorted(work_dir.glob("*/vis_data/scalars.json"))
    lines = logs[-1].read_text().splitlines() if logs else []
    steps = [json.loads(line).get("step", 0) for line in lines[-5:]]
    return dict(
        seconds=time.time() - process.create_time(),
        mb=memory / 2**20,
        cpu_seconds=times.user + times.system,
        iterations=max(steps, default=0),
        checkpoints=len(list(work_dir.glob("*.pth"))),
    )


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:  # a loading process has ended since it was listed
        return 0


def watch(process: subprocess.Popen, args: argparse.Namespace) -> Iterator[dict[str, float]]:
    observed = psutil.Process(process.pid)
    with tqdm(total=round(3600 * args.hours), unit="s", desc="soak") as bar:
        while bar.n < bar.total:
            time.sleep(args.every)
            if process.poll() is not None:
                raise SystemExit(f"the training ended, see {args.work_dir / 'soak.log'}")
            seen = look(observed, args.work_dir)
            bar.update(min(round(seen["seconds"]), bar.total) - bar.n)
            bar.set_postfix(MB=round(seen["mb"]), iteration=seen["iterations"])
            yield seen


def summary(looks: list[dict[str, float]]) -> dict[str, float]:
    """What a soak says; needs a dozen looks."""
    counted = [one for one in looks if one["seconds"] > WARMUP * looks[-1]["seconds"]]
    hours, mb, iterations, cpu = (
        np.array([one[name] for one in counted])
        for name in ("seconds", "mb", "iterations", "cpu_seconds")
    )
    hours = hours / 3600
    parts = np.array_split(np.arange(len(counted)), 5)
    speed = [(iterations[p[-1]] - iterations[p[0]]) / (cpu[p[-1]] - cpu[p[0]]) for p in parts]
    return dict(
        hours=looks[-1]["seconds"] / 3600,
        iterations=looks[-1]["iterations"],
        mb_median=float(np.median(mb)),
        mb_per_hour=float(np.polyfit(hours, mb, 1)[0]),
        iterations_per_cpu_second=[round(float(s), 3) for s in speed],
        most_checkpoints=max(one["checkpoints"] for one in looks),
    )


def verdict(figures: dict[str, float], args: argparse.Namespace) -> str | None:
    """What is wrong, if anything is."""
    growth, kept = figures["mb_per_hour"], len(list(args.work_dir.glob("iter_*.pth")))
    if growth > args.most_mb_per_hour:
        return f"memory grows by {growth:.0f} MB per hour, more than {args.most_mb_per_hour:g}"
    if kept > KEPT:
        return f"{args.work_dir} holds {kept} checkpoints, more than {KEPT}"
    return None


def draw(looks: list[dict[str, float]], path: Path) -> None:
    figure = Figure(figsize=(8, 5), layout="constrained")
    hours = [one["seconds"] / 3600 for one in looks]
    panels = figure.subplots(2, 1, sharex=True)
    for axes, name in zip(panels, ("mb", "iterations"), strict=True):
        axes.plot(hours, [one[name] for one in looks])
        axes.set_ylabel({"mb": "memory (MB)"}.get(name, name))
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("hours")
    figure.savefig(path, dpi=100)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    process, looks = start(args), []
    record = args.work_dir / "soak.json"
    try:
        for seen in watch(process, args):
            looks.append(seen)
            record.write_text(json.dumps(dict(looks=looks)))
    finally:
        process.terminate()
        process.wait()
    figures = summary(looks)
    record.write_text(json.dumps(dict(figures, looks=looks)))
    draw(looks, args.work_dir / "soak.png")
    if latest := latest_checkpoint(args.work_dir):
        read_checkpoint(latest)
    print(json.dumps(figures, indent=2))
    if wrong := verdict(figures, args):
        raise SystemExit(f"error: {wrong}")


if __name__ == "__main__":
    main()
