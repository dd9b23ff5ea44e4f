"""Training from a config, as in ``tools/train.py``."""

from functools import partial

from mmengine.config import Config
from mmengine.runner import Runner

from ..datasets.check import check_config_data
from .cli import build_runner, friendly_errors
from .config_check import building, check_config
from .distributed import run_on_first_process

NEEDED = ("model", "train_dataloader", "train_cfg", "optim_wrapper")


def train(cfg: Config, check_data: bool = True) -> Runner:
    """Build a runner and train.

    Args:
        check_data: Whether all data is read once before training.

    Raises:
        SystemExit: With a one-line message, if the config, the data or a checkpoint is invalid,
            or a loss or weight is not finite.
    """
    with friendly_errors():
        check_config(cfg, NEEDED)
        runner = build_runner(cfg)
        runner.prepare_weights()
        if check_data:  # last, since it may take minutes
            with building(cfg):
                run_on_first_process(partial(check_config_data, cfg))
        runner.train()
    return runner
