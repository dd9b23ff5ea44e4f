"""Converts our weights to the authors' layout, or one stage to a plain timm or mmseg model."""

import argparse
import warnings

from tvit_seg.engine.cli import friendly_errors
from tvit_seg.engine.cli_weights import (
    add_trust_argument,
    add_weights_arguments,
    architecture_options,
)
from tvit_seg.weights.convert import backbone_weights, to_authors, to_mmseg
from tvit_seg.weights.io import trusting
from tvit_seg.weights.names_swin import is_swin
from tvit_seg.weights.publish import read_source, write_release
from tvit_seg.weights.stage import extract_stage


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help=".pth or .safetensors file with ViT or Swin weights")
    parser.add_argument("target", help=".pth or .safetensors file to write")
    parser.add_argument("--layout", choices=["authors", "timm", "mmseg"], required=True)
    parser.add_argument("--stage", type=int, help="thinking stage, from 0, for timm and mmseg")
    add_weights_arguments(parser)
    add_trust_argument(parser)
    args = parser.parse_args()
    if (args.stage is None) != (args.layout == "authors"):
        parser.error("--stage goes with --layout timm or mmseg, which need it")
    return args


def main() -> None:
    args = parse_args()
    with friendly_errors(), trusting(args.trust_checkpoint):
        weights, record = read_source(args.source, args.ema)
        swin = is_swin(weights)
        recorded = record.pop("backbone", {})
        options = architecture_options(args, recorded)
        if not swin and not recorded and args.head_dim is None and args.layout != "authors":
            warnings.warn(
                f"{args.source} does not record the width of its attention heads: "
                f"{options['head_dim']} channels are assumed; set --head-dim if that is wrong",
                stacklevel=1,
            )
        lost = []
        if args.layout == "authors":
            theirs = to_authors(weights)
            if recorded:
                record["backbone"] = recorded
            if (
                swin
                and options["slicing"] != "leading"
                and any("recycle." in name for name in weights)
            ):
                lost.append("narrow stages: the authors' code slices them as slicing='leading'")
            if swin and len(theirs) < len(backbone_weights(weights)):
                lost.append("the norms of the lower levels' maps")
            write_release(theirs, args.target, **record)
        else:
            plain, model = extract_stage(
                weights, args.stage, **options, maps=args.layout == "mmseg"
            )
            if args.stage > 0:
                lost.append(
                    "recycled tokens of the stage before: the plain model predicts otherwise"
                )
            if args.layout == "mmseg":
                lost.append("the classification head")
                plain = to_mmseg(plain)
            write_release(plain, args.target, model=model, lost=lost, **record)
            name = "SwinTransformer" if swin else "VisionTransformer"
            print(f"{args.target}: {name}({', '.join(f'{k}={v}' for k, v in model.items())})")
        for what in lost:
            print(f"lost: {what}")


if __name__ == "__main__":
    main()
