"""Converts our weights to the authors' layout, or one stage to a plain timm or mmseg ViT."""

import argparse

from tvit_seg.engine.launch import friendly_errors
from tvit_seg.export import extract_stage, timm_to_mmseg, to_authors
from tvit_seg.release import read_source, write_release


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help=".pth or .safetensors file with ViT weights")
    parser.add_argument("target", help=".pth or .safetensors file to write")
    parser.add_argument("--layout", choices=["authors", "timm", "mmseg"], required=True)
    parser.add_argument("--stage", type=int, help="thinking stage, from 0, for timm and mmseg")
    parser.add_argument("--head-dim", type=int, default=64, help="channels of a head")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--ema", action="store_const", const=True, help="take averaged weights")
    which.add_argument(
        "--raw", dest="ema", action="store_const", const=False, help="take raw weights"
    )
    args = parser.parse_args()
    if (args.stage is None) != (args.layout == "authors"):
        parser.error("--stage goes with --layout timm or mmseg, and they need it")
    return args


def main() -> None:
    args = parse_args()
    with friendly_errors():
        weights, record = read_source(args.source, args.ema)
        if args.layout == "authors":
            write_release(to_authors(weights), args.target, **record)
            return
        plain, model = extract_stage(weights, args.stage, args.head_dim)
        lost = []
        if args.stage > 0:
            lost.append("recycled tokens of the stage before: the plain model predicts otherwise")
        if args.layout == "mmseg":
            lost.append("the classification head")
            plain = timm_to_mmseg(plain)
        write_release(plain, args.target, model=model, lost=lost, **record)
        print(
            f"{args.target}: VisionTransformer({', '.join(f'{k}={v}' for k, v in model.items())})"
        )
        for what in lost:
            print(f"lost: {what}")


if __name__ == "__main__":
    main()
