"""Evaluates a segmentor at several gate thresholds, in one pass: quality against cost."""

import argparse
import csv
import json
from pathlib import Path

from prettytable import PrettyTable

from tvit_seg.checkpoint_io import CheckpointError, read_checkpoint
from tvit_seg.datasets.check import DataError, require_data
from tvit_seg.engine.distributed import close_distributed
from tvit_seg.engine.launch import (
    add_common_arguments,
    build_runner,
    friendly_errors,
    load_config,
)
from tvit_seg.evaluation.plot import plot_sweep
from tvit_seg.evaluation.sweep import Sweep, sweep


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    add_common_arguments(parser)
    parser.add_argument(
        "--thresholds",
        nargs="+",
        type=float,
        help="in nats; default: 0, the quartiles of the first stage's entropies, and infinity",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw quality against cost there")
    return parser.parse_args()


def table(rows: list[dict]) -> PrettyTable:
    """Quality and cost at each threshold."""
    table = PrettyTable(["threshold", *list(rows[0])[1:]])
    for row in rows:
        threshold, *figures = row.values()
        table.add_row([f"{threshold:.4g}", *(f"{figure:.4g}" for figure in figures)])
    return table


def save(found: Sweep, args: argparse.Namespace) -> None:
    for path in filter(None, (args.json, args.csv)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if args.json:  # JSON has no infinity
        rows = [{**row, "threshold": str(row["threshold"])} for row in found.rows]
        curves = {name: getattr(found, name) for name in ("single", "random", "oracle", "gap")}
        args.json.write_text(json.dumps({"rows": rows, **curves}, indent=2))
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, found.rows[0])
            writer.writeheader()
            writer.writerows(found.rows)
    if args.plot:
        plot_sweep(found, args.plot, title=Path(args.config).stem)


def main() -> None:
    args = parse_args()
    with friendly_errors():
        cfg = load_config(args)
        read_checkpoint(args.checkpoint)  # bad ones end here, before the model is built
        require_data(cfg)
        cfg.load_from, cfg.resume = args.checkpoint, False
        runner = build_runner(cfg)
    with friendly_errors(CheckpointError, DataError, FileNotFoundError, ValueError):
        loader = runner.build_dataloader(cfg.test_dataloader)
        runner.load_or_resume()
        model = getattr(runner.model, "module", runner.model)
        key = "difficulty" if "difficulty" in cfg.get("meta_keys", ()) else None
        found = sweep(model, loader, args.thresholds, difficulty_key=key)
    if found:
        print(table(found.rows))
        print(f"area between gate and oracle: {found.gap:.2f} points of mIoU")
        save(found, args)
    close_distributed(runner)


if __name__ == "__main__":
    main()
