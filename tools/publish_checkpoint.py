"""Reduces a training checkpoint to what inference needs: weights and class names."""

import argparse

from tvit_seg.engine.cli import friendly_errors
from tvit_seg.engine.cli_weights import add_trust_argument
from tvit_seg.weights.io import (
    get_meta,
    get_state_dict,
    read_checkpoint,
    trusting,
    write_checkpoint,
)

_KEPT = ("dataset_meta", "backbone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="checkpoint written by training")
    parser.add_argument("target", help="file to write")
    parser.add_argument("--half", action="store_true", help="store the weights as float16")
    add_trust_argument(parser)
    args = parser.parse_args()
    with friendly_errors(), trusting(args.trust_checkpoint):
        checkpoint = read_checkpoint(args.source)
        known = get_meta(checkpoint)
        meta = {"dataset_meta": {}} | {key: known[key] for key in _KEPT if key in known}
        weights = get_state_dict(checkpoint)
        if args.half:
            weights = {k: w.half() if w.is_floating_point() else w for k, w in weights.items()}
        write_checkpoint({"meta": meta, "state_dict": weights}, args.target)


if __name__ == "__main__":
    main()
