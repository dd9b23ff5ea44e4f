"""Keeps of a training checkpoint what inference needs: weights and the names of the classes."""

import argparse

from tvit_seg.engine.cli import friendly_errors
from tvit_seg.engine.weights_arguments import add_trust_argument
from tvit_seg.weights.io import (
    get_meta,
    get_state_dict,
    read_checkpoint,
    trusting,
    write_checkpoint,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="checkpoint written by training")
    parser.add_argument("target", help="file to write")
    add_trust_argument(parser)
    args = parser.parse_args()
    with friendly_errors(), trusting(args.trust_checkpoint):
        checkpoint = read_checkpoint(args.source)
        meta = {"dataset_meta": get_meta(checkpoint).get("dataset_meta", {})}
        write_checkpoint({"meta": meta, "state_dict": get_state_dict(checkpoint)}, args.target)


if __name__ == "__main__":
    main()
