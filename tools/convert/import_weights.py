"""Converts ViT or Swin weights to our format: weights only, with their origin recorded.

Reads checkpoints of the authors (classification, segmentation, raw or averaged, hub exports), DeiT,
timm, mmseg and DINO ViTs, Swins of Microsoft, timm and mmseg, and our own trainings. Networks wider
than the last of ``--thinking-stages`` are cropped.
"""

import argparse

from tvit_seg import convert_state_dict
from tvit_seg.engine.cli import friendly_errors
from tvit_seg.engine.cli_weights import (
    add_trust_argument,
    add_weights_arguments,
    architecture_options,
)
from tvit_seg.errors import CheckpointError
from tvit_seg.registry import MODELS
from tvit_seg.weights.architecture import read_architecture
from tvit_seg.weights.convert import backbone_weights
from tvit_seg.weights.io import trusting
from tvit_seg.weights.publish import read_source, write_release


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help=".pth, .bin, .safetensors or .npz file")
    parser.add_argument("target", help=".pth or .safetensors file to write")
    add_weights_arguments(parser)
    add_trust_argument(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with friendly_errors(), trusting(args.trust_checkpoint):
        weights, record = read_source(args.source, args.ema)
        recorded = record.pop("backbone", {})
        options = architecture_options(args, recorded)
        backbone = read_architecture(weights, **options)
        print(weights.report)
        inner = backbone_weights(weights)
        width = inner["patch_embed.proj.weight"].shape[0]
        if backbone["embed_dims"] < width:
            if others := [name for name in weights if name.removeprefix("backbone.") not in inner]:
                raise CheckpointError(
                    f"only backbones and classifiers can be cropped: {args.source} is a model of "
                    f"{width} channels with {others[0]}, "
                    f"thinking_stages={tuple(options['thinking_stages'])} need "
                    f"{backbone['embed_dims']}"
                )
            cropped = convert_state_dict(inner, MODELS.build(backbone))
            print(cropped.report)
            prefix = "" if inner.keys() == weights.keys() else "backbone."
            weights = {f"{prefix}{name}": value for name, value in cropped.items()}
        del backbone["type"]  # the file contains weights only; its reader chooses the model
        write_release(weights, args.target, backbone=backbone, **record)
        stages = "-".join(map(_text, backbone["thinking_stages"]))
        print(f"{args.target}: {stages}, {len(weights)} tensors, from {record['source']}")


def _text(stage: int | tuple[int, ...]) -> str:
    return f"{stage}H" if isinstance(stage, int) else f"({','.join(map(str, stage))})H"


if __name__ == "__main__":
    main()
