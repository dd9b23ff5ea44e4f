"""Random states that a resumed training finds again."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

_STEPS = 1  # makes these other numbers than those that loading is seeded with


class StepSeedHook(Hook):
    """Makes every step's random numbers a function of the seed, the process, and the step.

    mmengine saves the seed but no random states, and only the first process's file could hold
    them. Derived states need no saving: a resumed run, on as many processes, draws what an
    uninterrupted one would have drawn. What loading draws follows the sample, not the step, see
    :class:`~tvit_seg.engine.SeededDataset`. What all processes must draw alike, a model
    draws from its ``shared_random``, a ``random.Random`` that this hook seeds without regard to the
    process.
    """

    priority = "VERY_HIGH"

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds the step.

        Args:
            runner: As above.
            batch_idx: Not used.
            data_batch: Not used.
        """
        numbers = _numbers(runner)
        random.seed(int(numbers[0]))
        np.random.seed(numbers[1])  # noqa: NPY002, a model may draw from it
        torch.manual_seed(int(numbers[2]))
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if hasattr(model, "shared_random"):
            model.shared_random.seed(int(_numbers(runner, common=True)[0]))


def _numbers(runner: Runner, common: bool = False) -> np.ndarray:
    """Three seeds for this step; common ones are the same in every process."""
    seed, rank = runner.seed, runner.rank
    if common:
        if runner._randomness_cfg.get("diff_rank_seed"):
            seed -= rank  # mmengine added it
        rank = 0
    key = (seed, rank, runner.iter, int(common), _STEPS)
    return np.random.SeedSequence(key).generate_state(3)
