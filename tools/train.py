"""Trains a segmentor or a classifier."""

import argparse

import tvit_seg  # noqa: F401, registers the models
from tvit_seg.engine.cli import (
    add_common_arguments,
    friendly_errors,
    load_config,
    require_start,
    set_resume,
    use_amp,
)
from tvit_seg.engine.config_check import check_config
from tvit_seg.engine.distributed import close_distributed
from tvit_seg.engine.train import NEEDED, train
from tvit_seg.weights.io import trusting


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    add_common_arguments(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="continue from this checkpoint, or from the latest in the work directory",
    )
    parser.add_argument("--amp", action="store_true", help="train in mixed precision")
    parser.add_argument(
        "--skip-data-check", action="store_true", help="do not read all data before training"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with friendly_errors(), trusting(args.trust_checkpoint):
        cfg = load_config(args)
        check_config(cfg, NEEDED)
        set_resume(cfg, args.resume)
        require_start(cfg)
        if args.amp:
            use_amp(cfg)
        runner = train(cfg, check_data=not args.skip_data_check)
    close_distributed(runner)


if __name__ == "__main__":
    main()
