"""Random states that a resumed training finds again."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

_DATA, _MODEL, _SHARED = 0, 1, 2


class StepSeedHook(Hook):
    """Makes every step's random numbers a function of the seed, the process, and the step.

    mmengine saves the seed but no random states, and only the first process's file could hold
    them. Derived states need no saving: a resumed run, on as many processes, draws what an
    uninterrupted one would have drawn. The numbers for loading data do not depend on how many the
    model or a validation used up. What all processes must draw alike, a model draws from its
    ``shared_random``, a ``random.Random`` that this hook seeds without regard to the process.

    Loading processes take their seed from this one when they start. So with ``num_workers > 0`` the
    above holds for training by epochs whose dataloader has ``persistent_workers=False`` and
    ``worker_init_fn=dict(type='keep_worker_seed')``.
    """

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner: Runner) -> None:
        """Seeds the start of the dataloader.

        Args:
            runner: Knows seed, process and step.
        """
        _seed(runner, _DATA)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds the step.

        Args:
            runner: As above.
            batch_idx: Not used.
            data_batch: Not used.
        """
        _seed(runner, _MODEL)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if hasattr(model, "shared_random"):
            model.shared_random.seed(int(_numbers(runner, _SHARED, common=True)[0]))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Seeds the loading of the next batch.

        Args:
            runner: As above.
            batch_idx: Not used.
            data_batch: Not used.
            outputs: Not used.
        """
        _seed(runner, _DATA, steps_ahead=1)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Seeds the loading of the next batch, after a validation during training.

        Args:
            runner: As above.
            metrics: Not used.
        """
        _seed(runner, _DATA)


def _seed(runner: Runner, purpose: int, steps_ahead: int = 0) -> None:
    numbers = _numbers(runner, purpose, steps_ahead)
    random.seed(int(numbers[0]))
    np.random.seed(numbers[1])  # noqa: NPY002, pipelines and timm draw from it
    torch.manual_seed(int(numbers[2]))


def _numbers(
    runner: Runner, purpose: int, steps_ahead: int = 0, common: bool = False
) -> np.ndarray:
    """Three seeds for a purpose; common ones are the same in every process."""
    seed, rank = runner.seed, runner.rank
    if common:
        if runner._randomness_cfg.get("diff_rank_seed"):
            seed -= rank  # mmengine added it
        rank = 0
    key = (seed, rank, runner.iter + steps_ahead, purpose)
    return np.random.SeedSequence(key).generate_state(3)
