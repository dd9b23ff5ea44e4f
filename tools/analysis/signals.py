"""Compares signals that a gate could read: how well they order images, windows and tokens by gain.

The gain is what the last thinking stage improves on the first. Areas are points of mIoU above
random units at equal cost; relative ones are shares of what an oracle wins (random 0, oracle 1).
"""

import argparse
from pathlib import Path

import numpy as np
from prettytable import PrettyTable

from tvit_seg.datasets.check import require_data
from tvit_seg.engine.cli import (
    add_block_argument,
    add_common_arguments,
    build_runner,
    choose_data,
    friendly_errors,
    load_config,
)
from tvit_seg.engine.distributed import close_distributed
from tvit_seg.evaluation.signals import MAPS, SignalRecords, learned_gain, record_signals
from tvit_seg.evaluation.statistics import Ranking, interval, resample
from tvit_seg.models.segmentors import ThinkingEncoderDecoder
from tvit_seg.utils.checks import check
from tvit_seg.utils.tables import write_csv
from tvit_seg.visualization.plots import plot_signals
from tvit_seg.weights.io import read_checkpoint, trusting


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    add_common_arguments(parser)
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as CSV")
    parser.add_argument(
        "--images", type=Path, metavar="FILE", help="write signals and gains of each image as CSV"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="plot mIoU against cost")
    add_block_argument(parser)
    parser.add_argument(
        "--learn",
        action="store_true",
        help="also fit a ridge regression of the gain on the training images",
    )
    return parser.parse_args()


def row(level: str, signal: str, ranking: Ranking, block: int, seconds: float) -> dict:
    draws = resample(int(ranking.image.max()) + 1, block)
    low, high = interval(map(ranking.area, draws))
    bottom, top = interval(map(ranking.relative_area, draws))
    return dict(
        level=level,
        signal=signal,
        spearman=ranking.spearman(),
        auroc=ranking.auroc(),
        area=ranking.area(),
        area_low=low,
        area_high=high,
        relative_area=ranking.relative_area(),
        relative_area_low=bottom,
        relative_area_high=top,
        ms=1e3 * seconds,
    )


def compare(found: SignalRecords, learned: np.ndarray | None, block: int) -> list[dict]:
    rows = []
    for signal in found.images[0].values:
        ranking = found.ranking("image", signal)
        rows.append(row("image", signal, ranking, block, found.seconds.get(signal, np.nan)))
    if learned is not None:
        ranking = found.ranking("image", "learned", learned)
        rows.append(row("image", "learned", ranking, block, np.nan))
    for level in ("window", "token"):
        for signal in MAPS:
            ranking = found.ranking(level, signal)
            rows.append(row(level, signal, ranking, block, found.seconds[signal]))
    return rows


def table(rows: list[dict]) -> PrettyTable:
    table = PrettyTable(["level", "signal", "Spearman", "AUROC", "area", "relative area", "ms"])
    for r in rows:
        area, relative = (
            f"{r[name]:.2f} [{r[name + '_low']:.2f}, {r[name + '_high']:.2f}]"
            for name in ("area", "relative_area")
        )
        figures = [f"{r['spearman']:.2f}", f"{r['auroc']:.2f}", area, relative, f"{r['ms']:.2f}"]
        table.add_row([r["level"], r["signal"], *figures])
    return table


def per_image(found: SignalRecords) -> list[dict]:
    rows = []
    for image in found.images:
        areas = image.counts.sum((1, 2))  # (2, 4, K)
        correct = areas[:, 0].sum(-1) / areas[:, 3].sum(-1).clip(min=1)
        name = Path(image.name).name
        accuracies = dict(accuracy_first=correct[0], accuracy_last=correct[1])
        rows.append(dict(image=name, gmacs=image.gmacs, **accuracies, **image.values))
    return rows


def main() -> None:
    args = parse_args()
    with friendly_errors(), trusting(args.trust_checkpoint):
        cfg = load_config(args)
        checkpoint = read_checkpoint(args.checkpoint)
        require_data(cfg)
        cfg.load_from, cfg.resume = args.checkpoint, False
        runner = build_runner(cfg, checkpoint)
        runner.call_hook("before_run")  # prepares hooks that average weights for loading
        runner.load_or_resume()
        model = getattr(runner.model, "module", runner.model)
        fits = isinstance(model, ThinkingEncoderDecoder)
        check(fits, "model", type(model).__name__, "a ThinkingEncoderDecoder")
        found = record_signals(model, runner.build_dataloader(choose_data(cfg, "test")))
        learned = None
        if args.learn:
            train = record_signals(model, runner.build_dataloader(choose_data(cfg, "train")))
            learned = learned_gain(train, found)
        rows = compare(found, learned, args.block)
        print(table(rows))
        print(f"calibration error of stage 0's pixels: {found.calibration.error:.3f}")
        if args.csv:
            write_csv(args.csv, rows)
        if args.images:
            write_csv(args.images, per_image(found))
        if args.plot:
            plot_signals(found, args.plot, title=Path(args.config).stem)
    close_distributed(runner)


if __name__ == "__main__":
    main()
