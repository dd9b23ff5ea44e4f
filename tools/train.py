"""Trains a segmentor or a classifier."""

import argparse
from functools import partial

import tvit_seg  # noqa: F401, registers the models
from tvit_seg.checkpoint_io import CheckpointError, trusting
from tvit_seg.datasets.check import DataError, check_config_data
from tvit_seg.engine.config_errors import ConfigError
from tvit_seg.engine.distributed import close_distributed, run_on_first_process
from tvit_seg.engine.finite_hook import DivergedError
from tvit_seg.engine.launch import (
    add_common_arguments,
    build_runner,
    friendly_errors,
    load_config,
    require_start,
    set_resume,
    use_amp,
)


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
        set_resume(cfg, args.resume)
        require_start(cfg)
        if args.amp:
            use_amp(cfg)
        runner = build_runner(cfg)
        runner.prepare_weights()
        if not args.skip_data_check:  # last, since it may take minutes
            run_on_first_process(partial(check_config_data, cfg))
    with (
        friendly_errors(CheckpointError, ConfigError, DataError, DivergedError, OSError),
        trusting(args.trust_checkpoint),
    ):
        runner.train()
    close_distributed(runner)


if __name__ == "__main__":
    main()
