"""Command-line arguments for reading a file of weights."""

import argparse
from collections.abc import Mapping
from typing import Any


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--thinking-stages``, ``--head-dim``, ``--slicing``, ``--ema`` and ``--raw``."""
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
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--ema", action="store_const", const=True, help="take averaged weights")
    which.add_argument(
        "--raw", dest="ema", action="store_const", const=False, help="take raw weights"
    )


def architecture_options(args: argparse.Namespace, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``head_dim``, ``thinking_stages`` and ``slicing`` for ``read_architecture``.

    Args:
        args: Parsed arguments of :func:`add_weights_arguments`, which take precedence.
        recorded: The backbone's arguments from the source file, empty if it has none.
    """
    heads, head_dim = recorded.get("num_heads"), 64
    if isinstance(heads, int):  # a ViT's; a Swin has several
        head_dim = recorded["embed_dims"] // heads
    return dict(
        head_dim=args.head_dim or head_dim,
        thinking_stages=args.thinking_stages or recorded.get("thinking_stages"),
        slicing=args.slicing or recorded.get("slicing"),
    )


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
