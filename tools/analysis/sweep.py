"""Evaluates a segmentor or classifier at any number of gate thresholds, in one pass.

With a budget it picks the threshold that keeps it, says what to expect on new data, and writes a
config for tools/test.py.
"""

import argparse
import csv
import json
from dataclasses import asdict
from pathlib import Path

from mmengine.config import Config
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
from tvit_seg.evaluation.budget import KINDS, Budget, Plan, plan
from tvit_seg.evaluation.contact_sheet import draw_contact_sheet
from tvit_seg.evaluation.plot import plot_sweep
from tvit_seg.evaluation.splits import try_splits
from tvit_seg.evaluation.sweep import Sweep, check_thresholds, sweep


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
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
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE", help="draw the easiest and the hardest images there"
    )
    budgets = parser.add_argument_group("budget").add_mutually_exclusive_group()
    budgets.add_argument("--budget-gmacs", type=float, help="average GMACs of an image")
    budgets.add_argument("--budget-ms", type=float, help="average milliseconds of an image")
    budgets.add_argument(
        "--max-drop", type=float, help="points of mIoU that may be lost against always thinking"
    )
    budget = parser.add_argument_group("budget")
    budget.add_argument(
        "--split",
        choices=("test", "val", "train"),
        default="test",
        help="data to calibrate on; train: the training images, seen as in testing (test)",
    )
    budget.add_argument(
        "--write-config", type=Path, metavar="FILE", help="write a config with this threshold there"
    )
    budget.add_argument(
        "--adaptive",
        action="store_true",
        help="in that config, a BudgetGate that keeps the cost when the data drifts",
    )
    budget.add_argument(
        "--splits",
        type=int,
        default=0,
        metavar="N",
        help="also calibrate on N random halves of the images and look at the other halves",
    )
    args = parser.parse_args(argv)
    if args.thresholds is not None:
        with friendly_errors():
            args.thresholds = check_thresholds(args.thresholds)
    with friendly_errors():
        args.budget = read_budget(args)
    if args.budget is None and (args.write_config or args.adaptive or args.splits):
        parser.error("--write-config, --adaptive and --splits need a budget")
    if args.write_config and args.write_config.suffix != ".py":
        parser.error(f"--write-config {args.write_config} must end in .py")
    return args


def read_budget(args: argparse.Namespace) -> Budget | None:
    given = zip(KINDS, (args.budget_gmacs, args.budget_ms, args.max_drop), strict=True)
    return next((Budget(kind, value) for kind, value in given if value is not None), None)


def choose_data(cfg: Config, split: str) -> dict:
    """The dataloader to go through; of the training data with the pipeline for testing."""
    if split != "train":
        return cfg[f"{split}_dataloader"]
    loader = cfg.test_dataloader.copy()
    training = cfg.train_dataloader.dataset
    names = ("data_root", "data_prefix", "ann_file")
    loader.dataset.update({name: training[name] for name in names if name in training})
    return loader


def table(rows: list[dict]) -> PrettyTable:
    """Quality and cost at each threshold."""
    table = PrettyTable(["threshold", *list(rows[0])[1:]])
    for row in rows:
        threshold, *figures = row.values()
        table.add_row([f"{threshold:.4g}", *(f"{figure:.4g}" for figure in figures)])
    return table


def describe(found: Plan, budget: Budget) -> str:
    lines = [
        f"threshold {found.threshold:.6g} keeps {budget.kind} {budget.value:g}; on new data expect "
        "(95 % of sets of as many images within the interval):"
    ]
    lines += [
        f"  {name:6} {e.mean:8.4g}  [{e.low:.4g}, {e.high:.4g}]"
        for name, e in found.expected.items()
    ]
    return "\n".join(lines)


def gate_override(cfg: Config, found: Plan, adaptive: bool) -> dict:
    """The change of the config that puts a plan into practice."""
    if not adaptive:
        return dict(threshold=found.threshold)
    inner = dict(cfg.model.backbone.gate, threshold=found.threshold)
    return dict(_delete_=True, type="BudgetGate", gate=inner, think_shares=found.think_shares)


def write_config(path: Path, config: str, gate: dict, budget: Budget) -> None:
    base = Path(config).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"# {config} with a gate for a budget of {budget.value:g} {budget.kind}.\n"
        f"_base_ = {str(base)!r}\n"
        f"model = dict(backbone=dict(gate={gate!r}))\n"
    )


def save(found: Sweep, rows: list[dict], args: argparse.Namespace, chosen: Plan | None) -> None:
    for path in filter(None, (args.json, args.csv)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if args.json:  # JSON has no infinity
        plain = [{**row, "threshold": str(row["threshold"])} for row in rows]
        curves = {name: getattr(found, name) for name in ("single", "random", "oracle", "gap")}
        picked = {"plan": asdict(chosen)} if chosen else {}
        args.json.write_text(json.dumps({"rows": plain, **curves, **picked}, indent=2))
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    if args.plot:
        plot_sweep(found, rows, args.plot, title=Path(args.config).stem)


def report(found: Sweep, cfg: Config, args: argparse.Namespace) -> None:
    rows = [found.row(threshold) for threshold in args.thresholds or found.thresholds()]
    print(table(rows))
    metric = found.judge.headline
    print(f"area between gate and oracle: {found.gap:.2f} points of {metric}")
    chosen = None
    if args.budget:
        chosen = plan(found, args.budget)
        print(describe(chosen, args.budget))
        print(f"  --cfg-options model.backbone.gate.threshold={chosen.threshold:.6g}")
    save(found, rows, args, chosen)
    if args.write_config:
        gate = gate_override(cfg, chosen, args.adaptive)
        write_config(args.write_config, args.config, gate, args.budget)
        print(f"python tools/test.py {args.write_config} {args.checkpoint}")
    if args.splits:
        print(try_splits(found, args.budget, args.splits))


def main() -> None:
    args = parse_args()
    with friendly_errors():
        cfg = load_config(args)
        read_checkpoint(args.checkpoint)  # bad ones end here, before the model is built
        require_data(cfg)
        cfg.load_from, cfg.resume = args.checkpoint, False
        runner = build_runner(cfg)
    with friendly_errors(CheckpointError, DataError, FileNotFoundError, ValueError):
        loader = runner.build_dataloader(choose_data(cfg, args.split))
        runner.call_hook("before_run")  # hooks that average weights get ready to load
        runner.load_or_resume()
        model = getattr(runner.model, "module", runner.model)
        key = "difficulty" if "difficulty" in cfg.get("meta_keys", ()) else None
        found = sweep(model, loader, difficulty_key=key)
        if found:
            report(found, cfg, args)
        if found and args.sheet:
            draw_contact_sheet(found, model, loader.dataset, args.sheet)
    close_distributed(runner)


if __name__ == "__main__":
    main()
