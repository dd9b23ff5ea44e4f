"""Converts our weights to the authors' layout, or one stage to a plain timm or mmseg model."""

import argparse

from tvit_seg.engine.cli import friendly_errors
from tvit_seg.engine.cli_weights import add_trust_argument, add_weights_arguments, read_weights
from tvit_seg.weights.convert import backbone_weights, to_authors, to_mmseg
from tvit_seg.weights.io import trusting
from tvit_seg.weights.names_swin import is_swin
from tvit_seg.weights.publish import write_release
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
        weights, record, backbone = read_weights(args, needs_stages=args.layout != "authors")
        swin = is_swin(weights)
        lost = []
        if args.layout == "authors":
            theirs = to_authors(weights)
            backbone.pop("type", None)
            record.update(backbone=backbone)
            recycles = any("recycle." in name for name in weights)
            slicing = backbone.get("slicing", args.slicing)
            if swin and recycles and slicing != "leading":
                lost.append("narrow stages: the authors' code slices them as slicing='leading'")
            if swin and len(theirs) < len(backbone_weights(weights)):
                lost.append("the norms of the lower levels' maps")
            described = f"the authors' layout, {len(theirs)} tensors, {backbone}"
        else:
            theirs, model = extract_stage(
                weights,
                args.stage,
                args.head_dim,
                args.thinking_stages,
                args.slicing,
                maps=args.layout == "mmseg",
            )
            if args.stage > 0:
                lost.append(
                    "recycled tokens of the stage before: the plain model predicts otherwise"
                )
            if args.layout == "mmseg":
                lost.append("the classification head")
                theirs = to_mmseg(theirs)
            known = {key: model[key] for key in ("img_size", "patch_size", "num_heads")}
            known |= dict(embed_dims=model["embed_dim"], thinking_stages=(model["num_heads"],))
            record.update(model=model, lost=lost, backbone=known)
            name = "SwinTransformer" if swin else "VisionTransformer"
            described = f"{name}({', '.join(f'{k}={v}' for k, v in model.items())})"
        write_release(theirs, args.target, **record)
        print(f"{args.target}: {described}")
        for what in lost:
            print(f"lost: {what}")


if __name__ == "__main__":
    main()
