"""Converts our weights to the authors' layout, or one stage to a plain timm or mmseg model."""

import argparse

from mmengine.config import Config
from torch import Tensor

from tvit_seg.engine.cli import friendly_errors
from tvit_seg.engine.cli_weights import add_trust_argument, add_weights_arguments, read_weights
from tvit_seg.inference import load_model
from tvit_seg.models.decode_heads import StageDecoder
from tvit_seg.utils.checks import check
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
    parser.add_argument(
        "--config",
        help="config of a segmentor with nested heads, which --layout mmseg then includes: mmseg's "
        "own of the stage's width",
    )
    add_weights_arguments(parser)
    add_trust_argument(parser)
    args = parser.parse_args()
    if (args.stage is None) != (args.layout == "authors"):
        parser.error("--stage goes with --layout timm or mmseg, which need it")
    if args.config and args.layout != "mmseg":
        parser.error("--config goes with --layout mmseg")
    return args


def plain_heads(config: str, checkpoint: str, stage: int) -> dict[str, Tensor]:
    """Weights of a segmentor's nested neck and decode head at the width of one stage.

    Raises:
        ConfigError: The decode head is not nested: it reads padded maps, at full width only.
    """
    model, _ = load_model(Config.fromfile(config), checkpoint)
    decoder = StageDecoder(model, stage)
    kind = type(model.decode_head).__name__
    check(decoder.widths is not None, "decode_head", kind, "nested, nested_head=True")
    names = ("neck.", "decode_head.")
    return {k: v for k, v in decoder.state_dict().items() if k.startswith(names)}


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
            if args.config:
                theirs = {f"backbone.{name}": value for name, value in theirs.items()}
                theirs |= plain_heads(args.config, args.source, args.stage)
            elif any(name.startswith("decode_head.") for name in weights):
                lost.append("the decode head: --config with --layout mmseg publishes a nested one")
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
