"""Counts multiply-accumulates and parameters of each thinking stage, on the model itself.

Convention: one multiply-accumulate (MAC) for each product in a matrix multiplication or
convolution, attention's included; biases, norms, activations, softmax and resizing do not count. A
parameter counts if an operator reads it. Figures are cumulative: the cost of an image that
exits after the stage, including all earlier stages.
"""

import argparse
import json
import timeit
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from mmengine.config import Config
from prettytable import PrettyTable
from torch import nn

import tvit_seg  # noqa: F401, registers the models
from tvit_seg import stage_macs, stage_parameters
from tvit_seg.engine.cli import ConfigOptions, friendly_errors, read_config
from tvit_seg.engine.config_check import building
from tvit_seg.errors import ConfigError
from tvit_seg.inference import load_model
from tvit_seg.models.backbones import ThinkingBackbone
from tvit_seg.thinking import measure
from tvit_seg.utils.checks import check


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="image size, one or H W; default: the config's sliding window or crop_size",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument(
        "--cfg-options", nargs="+", action=ConfigOptions, default={}, metavar="KEY=VALUE"
    )
    args = parser.parse_args(argv)
    if args.size is not None and (len(args.size) > 2 or min(args.size) < 1):
        parser.error(f"--size {args.size} must be one or two lengths in pixels")
    return args


def count(model: nn.Module, size: Sequence[int]) -> list[dict]:
    """Rows of the table: the backbone's if it can run alone, then the whole model's with exits."""
    if not isinstance(getattr(model, "backbone", None), ThinkingBackbone):
        raise ConfigError(f"the config's {type(model).__name__} has no thinking backbone")
    counted = {}
    if hasattr(model, "think"):
        name = "with decode head" if hasattr(model, "decode_head") else "classifier"
        counted[name] = _figures(model, size)
    backbone = model.backbone
    backbone.set_gate(None)  # a backbone alone has no decoded pixels for a gate
    if backbone.pruning is None or not backbone.pruning.needs_decode_head:
        counted = {"backbone": _figures(backbone, size), **counted}
    return [dict(part=part, **figures) for part, rows in counted.items() for figures in rows]


@torch.inference_mode()
def gate_cost(model: nn.Module, size: Sequence[int]) -> dict | None:
    """Cost of measuring once with the model's gate on this machine, decoding aside; else None.

    ``gmacs`` is what decoding for the gate adds to each further stage.
    """
    if not hasattr(model, "think"):
        return None
    model.eval()
    gate = model.backbone.gate
    images = torch.randn(1, 3, *size)
    output = next(iter(model.backbone.iter_stages(images)))
    decode, gmacs = None, 0.0
    if gate.needs_decode_head:
        decode = model.decoder(images)
        coarse = decode.coarse(output.features)
        decode = replace(decode, coarse=lambda _: coarse)
        gmacs = _decoding_macs(model, size) / 1e9
    seconds = timeit.repeat(lambda: measure(gate, output, images, decode), number=1, repeat=5)
    return dict(gate=type(gate).__name__, ms=1e3 * min(seconds), gmacs=gmacs)


def _decoding_macs(model: nn.Module, size: Sequence[int]) -> float:
    """MACs that the last stage's image spends on decoding for the gate, at each earlier stage."""
    gate = model.backbone.gate
    always = stage_macs(model, size)[-1]
    model.backbone.set_gate(None)
    once = stage_macs(model, size)[-1]
    model.backbone.gate = gate
    return (always - once) / max(1, model.backbone.num_stages - 1)


def _figures(part: nn.Module, size: Sequence[int]) -> list[dict]:
    pairs = zip(stage_macs(part, size), stage_parameters(part, size), strict=True)
    return [
        dict(stage=stage, gmacs=macs / 1e9, parameters_m=parameters / 1e6)
        for stage, (macs, parameters) in enumerate(pairs)
    ]


def default_size(cfg: Config) -> Sequence[int]:
    size = cfg.model.get("test_cfg", {}).get("crop_size") or cfg.get("crop_size")
    check(size is not None, "crop_size", size, "set in the config or by --size")
    return size


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with friendly_errors():
        cfg = read_config(args.config, args.cfg_options)
        size = args.size or default_size(cfg)
        size = tuple(size) * 2 if len(size) == 1 else tuple(size)
        with building(cfg):
            model, _ = load_model(cfg, None)
        gate = gate_cost(model, size)
        rows = count(model, size)
    table = PrettyTable(["part", "stops after stage", "GMACs", "parameters (M)"])
    for row in rows:
        figures = (f"{row['gmacs']:.4g}", f"{row['parameters_m']:.4g}")
        table.add_row([row["part"], row["stage"], *figures])
    print(f"one image of {size[0]} x {size[1]} pixels")
    print(table)
    if gate is not None:
        print(
            f"{gate['gate']} takes {gate['ms']:.3g} ms to measure once on this machine, and "
            f"{gate['gmacs']:.4g} GMACs of decoding for each further stage"
        )
    print(" ".join(__doc__.split("\n\n")[1].split()))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"size": size, "rows": rows, "gate": gate}, indent=2))


if __name__ == "__main__":
    main()
