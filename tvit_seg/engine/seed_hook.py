"""Random states that a resumed training finds again."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

_DATA, _MODEL = 0, 1


class StepSeedHook(Hook):
    """Makes every step's random numbers a function of the seed, the process, and the step.

    mmengine saves the seed but no random states, and only the first process's file could hold
    them. Derived states need no saving: a resumed run, on as many processes, draws what an
    uninterrupted one would have drawn. The numbers for loading data do not depend on how many the
    model or a validation used up.

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
    key = (runner.seed, runner.rank, runner.iter + steps_ahead, purpose)
    numbers = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(numbers[0]))
    np.random.seed(numbers[1])  # noqa: NPY002, pipelines and timm draw from it
    torch.manual_seed(int(numbers[2]))
