"""Counts multiply-accumulates and parameters of each thinking stage, on the model itself.

Convention: one multiply-accumulate (MAC) for each product in a matrix multiplication or
convolution, attention's included; biases, norms, activations, softmax and resizing do not count. A
parameter counts if an operator reads it. Figures are cumulative: what an image costs that stops
after the stage, all earlier ones included.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from prettytable import PrettyTable
from torch import nn

import tvit_seg  # noqa: F401, registers the models
from tvit_seg import stage_macs, stage_parameters
from tvit_seg.engine.cli import ConfigOptions, friendly_errors, read_config
from tvit_seg.models.backbones import ThinkingBackbone


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="image size, one or H W; default: the sliding window or crop_size of the config",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--cfg-options", nargs="+", action=ConfigOptions, default={}, metavar="KEY=VALUE"
    )
    args = parser.parse_args(argv)
    if args.size is not None and (len(args.size) > 2 or min(args.size) < 1):
        parser.error(f"--size {args.size} must be one or two lengths in pixels")
    return args


def build(cfg: Config) -> nn.Module:
    """The model with weights as they come."""
    init_default_scope(cfg.get("default_scope", "mmseg"))
    return MODELS.build(cfg.model)  # weights are read by init_weights only


def parts(model: nn.Module) -> dict[str, nn.Module]:
    """What is counted: the backbone, and the whole where it can think by itself."""
    if not isinstance(getattr(model, "backbone", None), ThinkingBackbone):
        raise ValueError(f"the config's {type(model).__name__} has no thinking backbone")
    found = {}
    if hasattr(model, "think"):
        found["with decode head" if hasattr(model, "decode_head") else "classifier"] = model
    return {**found, "backbone": model.backbone}


def count(model: nn.Module, size: Sequence[int]) -> list[dict]:
    """Rows of the table."""
    rows = []
    for name, part in parts(model).items():
        if name == "backbone":  # alone it has no pixels to ask a gate about
            part.set_gate(None)
        macs, parameters = stage_macs(part, size), stage_parameters(part, size)
        for stage, figures in enumerate(zip(macs, parameters, strict=True)):
            gmacs, params = figures[0] / 1e9, figures[1] / 1e6
            rows.append(dict(part=name, stage=stage, gmacs=gmacs, parameters_m=params))
    return sorted(rows, key=lambda row: row["part"] != "backbone")


def default_size(cfg: Config) -> Sequence[int]:
    windows = cfg.model.get("test_cfg", {}).get("crop_size")
    size = windows or cfg.get("crop_size")
    if size is None:
        raise ValueError("the config has no crop_size: give --size")
    return size


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with friendly_errors():
        cfg = read_config(args.config, args.cfg_options)
        size = args.size or default_size(cfg)
        size = tuple(size) * 2 if len(size) == 1 else tuple(size)
        model = build(cfg)
        rows = count(model, size)
    table = PrettyTable(["part", "stops after stage", "GMACs", "parameters (M)"])
    for row in rows:
        figures = (f"{row['gmacs']:.4g}", f"{row['parameters_m']:.4g}")
        table.add_row([row["part"], row["stage"], *figures])
    print(f"one image of {size[0]} x {size[1]} pixels")
    print(table)
    print(" ".join(__doc__.split("\n\n")[1].split()))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"size": size, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
