"""Evaluates a segmentor or classifier at any number of gate thresholds, in one pass.

Given a budget, it picks the threshold that keeps it, prints the expected cost and quality on new
data, and can write a config for tools/test.py. With token pruning it can also sweep keep ratios.
"""

import argparse
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.runner.amp import autocast
from prettytable import PrettyTable
from torch.utils.data import DataLoader

import tvit_seg
from tvit_seg.datasets.check import require_data
from tvit_seg.engine.cli import (
    add_common_arguments,
    build_runner,
    choose_data,
    friendly_errors,
    load_config,
)
from tvit_seg.engine.distributed import close_distributed
from tvit_seg.evaluation import pareto_front
from tvit_seg.evaluation.budget import KINDS, Budget, Plan, plan, try_splits
from tvit_seg.evaluation.guarantee import Guarantee, guaranteed_plan, try_guarantee
from tvit_seg.evaluation.image_table import check_whole_images, write_image_table
from tvit_seg.evaluation.record import PassRecord
from tvit_seg.evaluation.sweep import (
    Sweep,
    check_keep_ratios,
    check_thresholds,
    sweep,
    sweep_keep_ratios,
)
from tvit_seg.models.compile import compile_as_configured
from tvit_seg.utils.checks import check
from tvit_seg.utils.tables import write_csv
from tvit_seg.utils.text import to_json
from tvit_seg.visualization.contact_sheet import draw_contact_sheet
from tvit_seg.visualization.plots import plot_keep_ratios, plot_sweep
from tvit_seg.visualization.report import ReportView, find_plotly, write_report
from tvit_seg.weights.io import read_checkpoint, trusting

UNLABELLED = "the images have no labels: exits and costs only, no quality, plot or image table"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    add_common_arguments(parser)
    parser.add_argument(
        "--thresholds",
        nargs="+",
        type=float,
        help="gate thresholds in nats; default: 0, quartiles of stage 0's entropies, infinity",
    )
    parser.add_argument(
        "--keep-ratios",
        nargs="+",
        type=float,
        metavar="R",
        help="keep ratios of the token pruning, in (0, 1]; one pass for each",
    )
    parser.add_argument("--amp", action="store_true", help="run in mixed precision")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as CSV")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FILE",
        help="write the pixel counts of each image and stage as CSV, for compare_seeds.py",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="plot quality against cost")
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE", help="draw the easiest and hardest images"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write a web page with the threshold as slider"
    )
    budgets = parser.add_argument_group("budget").add_mutually_exclusive_group()
    budgets.add_argument("--budget-gmacs", type=float, help="limit on average GMACs per image")
    budgets.add_argument("--budget-ms", type=float, help="limit on average milliseconds per image")
    budgets.add_argument(
        "--max-drop",
        type=float,
        help="limit on the loss in mIoU (top1) points against always thinking; with --confidence "
        "in points of an image's pixel accuracy",
    )
    budget = parser.add_argument_group("budget")
    budget.add_argument(
        "--confidence",
        type=float,
        metavar="C",
        help="probability, e.g. 0.9, that --max-drop holds on new images like these",
    )
    budget.add_argument(
        "--split",
        choices=("test", "val", "train"),
        default="test",
        help="data to calibrate on; train: training images with the test pipeline (test)",
    )
    budget.add_argument(
        "--write-config", type=Path, metavar="FILE", help="write a config with the threshold"
    )
    budget.add_argument(
        "--adaptive",
        action="store_true",
        help="use a BudgetGate in that config, which keeps the cost when data drifts",
    )
    budget.add_argument(
        "--splits",
        type=int,
        metavar="N",
        help="also calibrate on N random halves of the images and evaluate on the other halves",
    )
    args = parser.parse_args(argv)
    with friendly_errors():
        if args.thresholds is not None:
            args.thresholds = check_thresholds(args.thresholds)
        if args.keep_ratios is not None:
            args.keep_ratios = check_keep_ratios(args.keep_ratios)
        args.budget = read_budget(args)
    target = args.write_config
    if args.budget is None and (target or args.adaptive or args.splits is not None):
        parser.error("--write-config, --adaptive and --splits need a budget")
    if args.report and args.report.suffix != ".html":
        parser.error(f"--report {args.report} must end in .html")
    if args.keep_ratios and (args.budget or args.sheet or args.report):
        parser.error(
            "a budget, --sheet or --report needs a single keep ratio, not --keep-ratios: set it by "
            "--cfg-options model.backbone.pruning.keep_ratio=R"
        )
    if args.splits is not None and args.splits < 1:
        parser.error(f"--splits {args.splits} must be at least 1")
    if args.adaptive and not target:
        parser.error("--adaptive needs --write-config")
    if target and target.suffix != ".py":
        parser.error(f"--write-config {target} must end in .py")
    if target and target.resolve() == Path(args.config).resolve():
        parser.error(f"--write-config {target} would replace the config itself")
    return args


def read_budget(args: argparse.Namespace) -> Budget | Guarantee | None:
    if args.confidence is not None:
        check(args.max_drop is not None, "--max-drop", None, "given with --confidence")
        return Guarantee(args.max_drop, args.confidence)
    given = zip(KINDS, (args.budget_gmacs, args.budget_ms, args.max_drop), strict=True)
    return next((Budget(kind, value) for kind, value in given if value is not None), None)


def table(rows: list[dict]) -> PrettyTable:
    """Quality and cost at each setting."""
    table = PrettyTable(list(rows[0]))
    for row in rows:
        table.add_row([cell(name, value) for name, value in row.items()])
    return table


def cell(name: str, value: float | bool) -> str:
    if isinstance(value, bool):
        return "*" if value else ""
    return exact(value) if name == "threshold" else f"{value:.4g}"


def exact(value: float) -> str:
    """A threshold with as many digits as a gate, which compares in float32, tells apart."""
    texts = (f"{value:.{digits}g}" for digits in range(6, 10))
    return next(text for text in texts if np.float32(text) == np.float32(value))


def settable(found: Sweep) -> list[float]:
    """The sweep's own thresholds, with few digits, so that a row can be set by hand."""
    return [found.shorten(threshold) for threshold in found.thresholds()]


def describe(found: Plan, budget: Budget | Guarantee) -> str:
    lines = [
        f"threshold {exact(found.threshold)} keeps {budget} on these images; on new ones expect "
        "(95 % of sets of as many images within the interval):"
    ]
    lines += [
        f"  {name:6} {e.mean:8.4g}  [{e.low:.4g}, {e.high:.4g}]"
        for name, e in found.expected.items()
    ]
    lines.append(f"  --cfg-options model.backbone.gate.threshold={exact(found.threshold)}")
    return "\n".join(lines)


def gate_override(cfg: Config, found: Plan, adaptive: bool) -> dict:
    """Options of the gate, on top of the config's, that follow a plan."""
    if not adaptive:
        return dict(threshold=found.threshold)
    inner = dict(cfg.model.backbone.gate, threshold=found.threshold)
    return dict(_delete_=True, type="BudgetGate", gate=inner, think_shares=found.think_shares)


def write_config(path: Path, args: argparse.Namespace, gate: dict) -> None:
    """Write a config on top of the one given, with its ``--cfg-options``."""
    changes = Config()
    changes.merge_from_dict(args.cfg_options)
    changes.merge_from_dict({"model.backbone.gate": gate})
    path.parent.mkdir(parents=True, exist_ok=True)
    base = os.path.relpath(args.config, path.parent)
    lines = [f"# A gate for a budget: {args.budget}.\n"]
    lines += [f"_base_ = {base!r}\n"]
    lines += [f"{name} = {value!r}\n" for name, value in changes.to_dict().items()]
    path.write_text("".join(lines))


def yardsticks(found: Sweep) -> dict:
    return {name: getattr(found, name) for name in ("single", "random", "oracle", "gap")}


def save(rows: list[dict], figures: dict, args: argparse.Namespace) -> None:
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(to_json({"rows": rows, **figures}, indent=2))
    if args.csv:
        write_csv(args.csv, rows)


def save_images(found: dict[float, Sweep], args: argparse.Namespace) -> None:
    if args.images and all(swept.labelled for swept in found.values()):
        write_image_table(args.images, found)


def chosen_rows(found: Sweep, args: argparse.Namespace) -> list[dict]:
    return [found.row(threshold) for threshold in args.thresholds or settable(found)]


def report(found: Sweep, cfg: Config, args: argparse.Namespace) -> Plan | None:
    """Print and save; a budget out of reach is an error only when all else is saved."""
    rows = chosen_rows(found, args)
    print(table(rows))
    if found.labelled:
        metric = found.evaluator.headline
        print(f"area between gate and oracle: {found.gap:.2f} points of {metric}")
    else:
        print(UNLABELLED)
    figures = yardsticks(found) if found.labelled else {}
    save(rows, figures, args)
    if args.plot and found.labelled:
        plot_sweep(found, rows, args.plot, title=Path(args.config).stem)
    if not args.budget:
        return None
    guaranteed = isinstance(args.budget, Guarantee)
    chosen = (guaranteed_plan if guaranteed else plan)(found, args.budget)
    print(describe(chosen, args.budget))
    save(rows, {**figures, "plan": asdict(chosen)}, args)
    if args.write_config:
        write_config(args.write_config, args, gate_override(cfg, chosen, args.adaptive))
        print(f"python tools/test.py {args.write_config} {args.checkpoint}")
    if args.splits:
        print((try_guarantee if guaranteed else try_splits)(found, args.budget, args.splits))
    return chosen


def report_keep_ratios(found: dict[float, Sweep], args: argparse.Namespace) -> None:
    """Print and save all settings; mark the Pareto-optimal ones."""
    rows = [
        dict(keep_ratio=keep_ratio, **swept.row(threshold))
        for keep_ratio, swept in found.items()
        for threshold in args.thresholds or settable(swept)
    ]
    first = next(iter(found.values()))
    if not first.labelled:
        print(f"{table(rows)}\n{UNLABELLED}")
        save(rows, {}, args)
        return
    metric = first.evaluator.headline
    front = pareto_front(rows, quality=metric)
    for row in rows:
        row["pareto"] = any(row is best for best in front)
    print(table(rows))
    print(f"*: no other setting reaches as much {metric} for fewer GMACs")
    figures = {str(keep_ratio): yardsticks(swept) for keep_ratio, swept in found.items()}
    save(rows, dict(keep_ratios=figures), args)
    if args.plot:
        plot_keep_ratios(found, front, args.plot, title=Path(args.config).stem)


def difficulty_key(cfg: Config) -> str | None:
    """The entry of samples that the config's ``ThinkingMetric`` takes for a difficulty."""
    evaluators = cfg.get("test_evaluator") or []
    evaluators = evaluators if isinstance(evaluators, list | tuple) else [evaluators]
    return next((x["difficulty_key"] for x in evaluators if x.get("difficulty_key")), None)


def open_record(cfg: Config, loader: DataLoader, args: argparse.Namespace) -> PassRecord | None:
    """Record of this pass, to go on where an earlier one with the same facts has ended."""
    if getattr(loader.sampler, "shuffle", False):
        return None
    file = Path(args.checkpoint)
    facts = dict(model=cfg.model, data=choose_data(cfg, args.split), amp=args.amp)
    facts["version"], facts["report"] = tvit_seg.__version__, bool(args.report)
    facts["checkpoint"] = str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns
    return PassRecord(Path(cfg.work_dir) / "sweep", facts)


def main() -> None:
    args = parse_args()
    with friendly_errors(), trusting(args.trust_checkpoint):
        cfg = load_config(args)
        if args.report:
            find_plotly()  # a missing package ends here
        checkpoint = read_checkpoint(args.checkpoint)  # a bad one ends here
        require_data(cfg)
        cfg.load_from, cfg.resume = args.checkpoint, False
        runner = build_runner(cfg, checkpoint)
        loader = runner.build_dataloader(choose_data(cfg, args.split))
        runner.call_hook("before_run")  # prepares hooks that average weights for loading
        runner.load_or_resume()
        model = getattr(runner.model, "module", runner.model)
        if args.images:
            check_whole_images(model)
        compile_as_configured(model, cfg.get("compile"))
        key, record = difficulty_key(cfg), open_record(cfg, loader, args)
        view = ReportView.build(model, loader.dataset) if args.report else None
        with autocast(enabled=args.amp):
            if args.keep_ratios:
                if found := sweep_keep_ratios(model, loader, args.keep_ratios, key, record):
                    save_images(found, args)
                    report_keep_ratios(found, args)
            elif found := sweep(model, loader, key, record, view):
                pruning = model.backbone.pruning
                save_images({pruning.keep_ratio if pruning else 1.0: found}, args)
                if args.report:
                    gate, meta = model.backbone.gate, loader.dataset.metainfo
                    rows = chosen_rows(found, args)
                    title = Path(args.config).stem
                    shown = write_report(found, meta, rows, gate.threshold, args.report, title)
                    print(f"{args.report}: pictures of {shown} of {len(found.images)} images")
                if chosen := report(found, cfg, args):
                    model.backbone.gate.threshold = chosen.threshold
                if args.sheet:
                    draw_contact_sheet(found, model, loader.dataset, args.sheet)
        if record is not None:
            record.remove()
    close_distributed(runner)


if __name__ == "__main__":
    main()
