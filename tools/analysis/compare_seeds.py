"""Compares thinking with always thinking and with random images, over trainings of several seeds.

Reads what sweep.py --images wrote for each training. Intervals are of 95 % over images.
"""

import argparse
from pathlib import Path

from prettytable import PrettyTable

from tvit_seg.engine.cli import add_block_argument, friendly_errors
from tvit_seg.evaluation.image_table import ImageTable, compare, relative_area
from tvit_seg.utils.tables import write_csv
from tvit_seg.visualization.plots import plot_seeds


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", type=Path, help="CSV file of each training")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as CSV")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="plot mIoU against cost")
    add_block_argument(parser)
    return parser.parse_args()


def interval(row: dict[str, float], name: str) -> str:
    return f"{row[name]:+.2f} [{row[f'{name}.low']:+.2f}, {row[f'{name}.high']:+.2f}]"


def main() -> None:
    args = parse_args()
    with friendly_errors():
        tables = [ImageTable.read(path) for path in args.tables]
        rows = compare(tables, block=args.block)
        head = ["keep ratio", "images that think", "GMACs", "cost (%)", "mIoU", "spread"]
        table = PrettyTable([*head, "to always thinking", "to the line"])
        for row in rows:
            figures = [f"{row[name]:.4g}" for name in ("gmacs", "cost", "mIoU", "spread")]
            setting = [f"{row['keep_ratio']:g}", f"{row['share']:.0%}"]
            table.add_row(
                [*setting, *figures, interval(row, "to_always"), interval(row, "to_line")]
            )
        print(table)
        area, low, high = relative_area(tables, args.block)
        print(f"area of the image gate: {area:.2f} [{low:.2f}, {high:.2f}] of the oracle's")
        if args.csv:
            write_csv(args.csv, rows)
        if args.plot:
            plot_seeds(rows, args.plot)


if __name__ == "__main__":
    main()
