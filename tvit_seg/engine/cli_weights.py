"""Command-line arguments for reading a file of weights."""

import argparse

from ..weights.architecture import fit_to, read_architecture
from ..weights.convert import ConvertedStateDict
from ..weights.fit import recorded_head_dim
from ..weights.names_swin import is_swin
from ..weights.publish import read_source


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--thinking-stages``, ``--head-dim``, ``--slicing`` and so on."""
    parser.add_argument(
        "--thinking-stages",
        nargs="+",
        type=_heads,
        metavar="HEADS",
        help="heads of each stage, as 3 6 (ViT) or 3,3,6,12 3,6,12,24 (levels of a Swin); "
        "default: as recorded in the source, else read from the weights",
    )
    parser.add_argument(
        "--head-dim",
        type=int,
        help="channels of a ViT's head; default: as recorded in the source, else 64",
    )
    parser.add_argument(
        "--slicing",
        choices=["grouped", "leading"],
        help="slicing of a Swin's narrow stages; default: as recorded in the source, "
        "else leading for the authors' and grouped for others",
    )
    parser.add_argument(
        "--img-size",
        nargs=2,
        type=int,
        metavar=("HEIGHT", "WIDTH"),
        help="pixels of the image that a ViT's position embedding is for; default: as recorded in "
        "the source, else a square",
    )
    parser.add_argument(
        "--prefix",
        help="reads only entries whose names begin with it, in files of several networks",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--ema", action="store_const", const=True, help="take averaged weights")
    which.add_argument(
        "--raw", dest="ema", action="store_const", const=False, help="take raw weights"
    )


def read_weights(
    args: argparse.Namespace, needs_stages: bool = True
) -> tuple[ConvertedStateDict, dict, dict]:
    """Read the file ``args.source`` as the arguments of :func:`add_weights_arguments` ask for.

    Args:
        args: Parsed arguments.
        needs_stages: Raises an error for a Swin whose stages are neither recorded nor named; else
            its weights are only renamed.

    Returns:
        Weights that the backbone computes with, all of them; their origin; and the config of this
        backbone, empty where stages are unknown.
    """
    weights, record = read_source(args.source, args.ema, args.prefix)
    record.pop("backbone", None)
    recorded = weights.report.recorded
    if args.img_size is not None:
        recorded["img_size"] = tuple(args.img_size)
    if args.head_dim is not None:  # in place of the recorded width
        recorded.pop("num_heads", None)
    known = args.thinking_stages or recorded.get("thinking_stages")
    if is_swin(weights) and not (needs_stages or known) and any("recycle." in n for n in weights):
        return weights, record, {}
    backbone = read_architecture(weights, args.head_dim, args.thinking_stages, args.slicing)
    if args.head_dim is None and recorded_head_dim(recorded) is None and not is_swin(weights):
        print(f"{args.source} does not record heads: 64 channels each are assumed (--head-dim)")
    return fit_to(weights, backbone), record, backbone


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust-checkpoint``, to be passed to :func:`~tvit_seg.weights.io.trusting`."""
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load checkpoints that contain more than weights, and run the code in them",
    )


def _heads(text: str) -> int | tuple[int, ...]:
    """Parse the heads of a stage: one number, or one for each level of a Swin."""
    try:
        heads = tuple(map(int, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be heads such as 3, or one number for each level such as 3,3,6,12"
        ) from None
    return heads if "," in text else heads[0]
