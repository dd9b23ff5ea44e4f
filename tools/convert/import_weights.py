"""Converts anybody's ViT weights to ours: weights only, with their origin recorded.

Reads checkpoints of the authors (classification, segmentation, raw or averaged, hub exports), DeiT,
timm, mmseg and DINO ViTs, and our own trainings.
"""

import argparse

from tvit_seg import ThinkingViT, convert_state_dict
from tvit_seg.architecture import backbone_weights, read_architecture
from tvit_seg.checkpoint_io import CheckpointError
from tvit_seg.engine.launch import friendly_errors
from tvit_seg.release import read_source, write_release


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help=".pth, .bin, .safetensors or .npz file")
    parser.add_argument("target", help=".pth or .safetensors file to write")
    parser.add_argument(
        "--thinking-stages",
        nargs="+",
        type=int,
        metavar="HEADS",
        help="heads of each stage; crops networks that are wider than the last",
    )
    parser.add_argument("--head-dim", type=int, default=64, help="channels of a head")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--ema", action="store_const", const=True, help="take averaged weights")
    which.add_argument(
        "--raw", dest="ema", action="store_const", const=False, help="take raw weights"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with friendly_errors():
        weights, record = read_source(args.source, args.ema)
        kind = weights.report.source
        backbone = read_architecture(weights, args.head_dim, args.thinking_stages, kind)
        print(weights.report)
        width = backbone_weights(weights)["norm.weight"].shape[0]
        if backbone["embed_dims"] < width:
            prefixed = any(name.startswith("backbone.") for name in weights)
            if prefixed:
                raise CheckpointError(
                    f"only backbones can be cropped: {args.source} is a whole model of {width} "
                    f"channels, thinking_stages={tuple(args.thinking_stages)} need "
                    f"{backbone['embed_dims']}"
                )
            weights = convert_state_dict(weights, ThinkingViT(**backbone))
            print(weights.report)
        write_release(weights, args.target, backbone=backbone, **record)
        stages = "-".join(f"{heads}H" for heads in backbone["thinking_stages"])
        print(f"{args.target}: {stages}, {len(weights)} tensors, from {record['source']}")


if __name__ == "__main__":
    main()
