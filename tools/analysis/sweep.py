"""Evaluates a segmentor at several gate thresholds and prints quality against cost."""

import argparse
import json
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from prettytable import PrettyTable

import tvit_seg  # noqa: F401, registers the models
from tvit_seg.checkpoint_io import CheckpointError
from tvit_seg.datasets import DataError
from tvit_seg.engine.launch import (
    add_common_arguments,
    build_runner,
    friendly_errors,
    load_config,
    require_file,
)
from tvit_seg.gates.base import check_threshold

QUANTILES = (0.25, 0.5, 0.75)


class EntropyHook(Hook):
    """Collects the entropies after the first stage."""

    def __init__(self) -> None:
        self.entropies: list[torch.Tensor] = []

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        for sample in outputs:
            entropy = sample.gate_entropy
            self.entropies.append(entropy.reshape(-1, entropy.shape[-1])[:, 0])

    def quantiles(self) -> list[float]:
        entropies = torch.cat(self.entropies).double()
        return torch.quantile(entropies, torch.tensor(QUANTILES, dtype=torch.double)).tolist()


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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser.parse_args()


def sweep(runner: Runner, thresholds: list[float] | None) -> list[dict]:
    """One evaluation for each threshold; without any, the first one says which are of interest."""
    model = getattr(runner.model, "module", runner.model)
    gate = getattr(getattr(model, "backbone", None), "gate", None)
    if not hasattr(gate, "threshold"):
        raise ValueError(f"the config's gate {gate!r} has no threshold to sweep")
    hook = EntropyHook()
    runner.register_hook(hook)
    pending = [0.0] if thresholds is None else [check_threshold(value) for value in thresholds]
    rows = []
    while pending:
        gate.threshold = pending.pop(0)
        rows.append(dict(threshold=gate.threshold, **runner.test()))
        if thresholds is None and len(rows) == 1:
            pending = [*hook.quantiles(), float("inf")]
    return rows


def table(rows: list[dict]) -> PrettyTable:
    """Quality and cost at each threshold."""
    stages = sum(name.endswith(".share") for name in rows[0])
    levels = [name for name in rows[0] if ".thinks" in name or "/thinks" in name]
    head = ["threshold", "mIoU (%)", "GMACs", *(f"stage {i} (%)" for i in range(stages))]
    result = PrettyTable(head + [f"{name.split('.')[-1]} thinks (%)" for name in levels])
    for row in rows:
        shares = [row[f"thinking/stage{i}.share"] for i in range(stages)]
        figures = [row["mIoU"], row["thinking/gmacs"], *shares, *(row[name] for name in levels)]
        result.add_row([f"{row['threshold']:.4g}", *figures])
    return result


def main() -> None:
    args = parse_args()
    with friendly_errors():
        cfg = load_config(args)
        require_file(args.checkpoint)
        cfg.load_from, cfg.resume = args.checkpoint, False
        runner = build_runner(cfg)
    with friendly_errors(CheckpointError, DataError, ValueError):
        rows = sweep(runner, args.thresholds)
    print(table(rows))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps([{k: float(v) for k, v in r.items()} for r in rows]))


if __name__ == "__main__":
    main()
