"""Converts ViT or Swin weights to our format: weights only, with their origin recorded.

Reads checkpoints of the authors (classification, segmentation, raw or averaged, hub exports), DeiT,
timm, torchvision, transformers (a folder), mmseg, mmpretrain, DINO, CLIP and Google; Swins of
Microsoft, timm, torchvision, transformers and mmseg, and our own trainings. Networks wider than the
last of ``--thinking-stages`` are cropped; what a thinking backbone does not compute is refused.
"""

import argparse

from tvit_seg.engine.cli import friendly_errors
from tvit_seg.engine.cli_weights import add_trust_argument, add_weights_arguments, read_weights
from tvit_seg.weights.io import trusting
from tvit_seg.weights.publish import write_release


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", help=".pth, .bin, .safetensors or .npz file, or a folder of transformers"
    )
    parser.add_argument("target", help=".pth or .safetensors file to write")
    add_weights_arguments(parser)
    add_trust_argument(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with friendly_errors(), trusting(args.trust_checkpoint):
        weights, record, backbone = read_weights(args)
        print(weights.report)
        del backbone["type"]  # the file contains weights only; its reader chooses the model
        write_release(weights, args.target, backbone=backbone, **record)
        stages = "-".join(map(_text, backbone["thinking_stages"]))
        print(f"{args.target}: {stages}, {len(weights)} tensors, from {record['source']}")


def _text(stage: int | tuple[int, ...]) -> str:
    return f"{stage}H" if isinstance(stage, int) else f"({','.join(map(str, stage))})H"


if __name__ == "__main__":
    main()
