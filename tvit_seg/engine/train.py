"""A training from its config on, as ``tools/train.py`` runs it."""

from functools import partial

from mmengine.config import Config
from mmengine.runner import Runner

from ..datasets.check import check_config_data
from ..errors import CheckpointError, ConfigError, DataError, DivergedError
from .cli import build_runner, friendly_errors
from .config_errors import check_config
from .distributed import run_on_first_process

NEEDED = ("model", "train_dataloader", "train_cfg", "optim_wrapper")


def train(cfg: Config, check_data: bool = True) -> Runner:
    """Builds a runner and trains.

    Args:
        cfg: From :func:`~tvit_seg.engine.cli.load_config`.
        check_data: Whether all data is read once before training.

    Returns:
        The runner, which has trained.

    Raises:
        SystemExit: In one line, if the config, the data or a checkpoint is wrong, or if a loss
            or weight is not finite.
    """
    with friendly_errors():
        check_config(cfg, NEEDED)
        runner = build_runner(cfg)
        runner.prepare_weights()
        if check_data:  # last, since it may take minutes
            with runner.components.naming():
                run_on_first_process(partial(check_config_data, cfg))
    with friendly_errors(CheckpointError, ConfigError, DataError, DivergedError, OSError):
        runner.train()
    return runner
