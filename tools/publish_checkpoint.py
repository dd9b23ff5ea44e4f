"""Keeps of a training checkpoint what inference needs: weights and the names of the classes."""

import argparse

from tvit_seg.checkpoint_io import get_state_dict, read_checkpoint, write_checkpoint
from tvit_seg.engine.launch import friendly_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="checkpoint written by training")
    parser.add_argument("target", help="file to write")
    args = parser.parse_args()
    with friendly_errors():
        checkpoint = read_checkpoint(args.source)
        meta = {"dataset_meta": checkpoint.get("meta", {}).get("dataset_meta", {})}
        write_checkpoint({"meta": meta, "state_dict": get_state_dict(checkpoint)}, args.target)


if __name__ == "__main__":
    main()
