"""Hooks that make a resumed training equal to an uninterrupted one, bit for bit.

- Random numbers of the steps (:class:`StepSeedHook`) and of loading (:class:`SeededDataset`) are
  derived from the seed and the training's progress, so no random state needs to be saved.
- Accumulated gradients (:class:`GradientHook`) and the teacher of a pruned model
  (:class:`TeacherHook`) are saved with the model.
- An interrupted validation runs again (:class:`DueValidationHook`).
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import Dataset

from ...models.pruning import PruningLoss
from ...weights.io import is_finite

VALIDATED = "validated_step"
"""Key of the last validated step in the message hub, and with it in a checkpoint."""
_GRADIENTS = "accumulated_gradients"
_TEACHER = "pruning_teacher"
_STEPS = 1  # keeps the seeds of steps apart from those of samples


class SeededIndex(int):
    """An index with the seed of its sample: the run's seed, process, epoch, position in it."""

    key: tuple[int, ...]

    def __new__(cls, index: int, key: tuple[int, ...]):
        seeded = super().__new__(cls, index)
        seeded.key = key
        return seeded

    def __getnewargs__(self) -> tuple[int, tuple[int, ...]]:
        return int(self), self.key


class _SeededSampler:
    """Mixin that turns the indices of a sampler into :class:`SeededIndex`."""

    _start = 0

    def __iter__(self) -> Iterator[SeededIndex]:
        key = (getattr(self, "seed", 0), get_rank(), getattr(self, "epoch", 0))
        indices = super().__iter__()  # type: ignore[misc]  # of the sampler after this mixin
        for position, index in enumerate(indices, self._start):
            yield SeededIndex(index, (*key, position))


class _SeededSkippingSampler(_SeededSampler):
    def skip(self, count: int) -> None:
        super().skip(count)  # type: ignore[misc]  # likewise
        self._start += count


def seeded_sampler(kind: type) -> type:
    """Derive a sampler class that yields :class:`SeededIndex`.

    Each data loading worker has its own random stream, whose state depends on the number of workers
    and their start. With a seed for each sample, neither matters.
    """
    mixin = _SeededSkippingSampler if hasattr(kind, "skip") else _SeededSampler
    return type(kind.__name__, (mixin, kind), {})


class SeededDataset(Dataset):
    """A dataset that returns the same sample for the same :class:`SeededIndex`."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, index: int) -> dict:
        if isinstance(index, SeededIndex):
            torch.default_generator.manual_seed(_seed_all(index.key))
        return self.dataset[int(index)]


class StepSeedHook(Hook):
    """Seeds every training step by the run's seed, the process and the number of the step.

    A model's ``shared_random`` (a ``random.Random``) is seeded alike in all processes.
    """

    priority = "VERY_HIGH"

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed ``random``, NumPy, torch and the model's ``shared_random``."""
        torch.manual_seed(_seed_all((runner.seed, runner.rank, runner.iter, 0, _STEPS)))
        model = bare_model(runner)
        if hasattr(model, "shared_random"):
            differs = runner._randomness_cfg.get("diff_rank_seed")  # then mmengine added the rank
            seed = runner.seed - (runner.rank if differs else 0)
            shared = np.random.SeedSequence((seed, 0, runner.iter, 1, _STEPS)).generate_state(3)
            model.shared_random.seed(int(shared[0]))


def _seed_all(key: tuple[int, ...]) -> int:
    """Seed ``random`` and NumPy, and return a seed for torch."""
    numbers = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(numbers[0]))
    np.random.seed(numbers[1])  # noqa: NPY002, pipelines, models and timm draw from it
    return int(numbers[2])


class GradientHook(Hook):
    """Saves the gradients that ``accumulative_counts`` has accumulated, and resumes with them.

    mmengine would lose them if the iteration is no multiple of ``accumulative_counts``.
    """

    priority = "VERY_LOW"  # after FiniteHook

    def __init__(self):
        self._loaded: dict[str, torch.Tensor] = {}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the gradients to a resumable checkpoint."""
        if "optimizer" not in checkpoint or not _are_pending(runner):
            return
        parameters = bare_model(runner).named_parameters()
        gradients = {name: p.grad.cpu() for name, p in parameters if p.grad is not None}
        # float16 may overflow, and then the loss scaler skips the step
        if all(map(is_finite, gradients.values())):
            checkpoint[_GRADIENTS] = gradients

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Read the gradients if training is resumed."""
        if runner._resume:
            self._loaded = checkpoint.get(_GRADIENTS, {})

    def before_train(self, runner: Runner) -> None:
        """Restore the gradients, so that the next iteration adds to them."""
        gradients, self._loaded = self._loaded, {}
        if not gradients or not _are_pending(runner):
            return
        for name, parameter in bare_model(runner).named_parameters():
            if name in gradients:
                parameter.grad = gradients[name].to(parameter)
        runner.logger.info("resumed with the accumulated gradients")


def average_gradients(runner: Runner) -> None:
    """Average the accumulated gradients over all processes.

    Only the first process saves its gradients, and the optimizer step uses the average anyway.
    """
    if get_world_size() == 1 or not _are_pending(runner):
        return
    parameters = [one for one in bare_model(runner).parameters() if one.requires_grad]
    counts = torch.tensor([float(one.grad is not None) for one in parameters])
    all_reduce(counts)
    for parameter, count in zip(parameters, counts.tolist(), strict=True):
        if count:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            all_reduce(parameter.grad, op="mean")


def _are_pending(runner: Runner) -> bool:
    wrapper = runner.optim_wrapper
    return not isinstance(wrapper, OptimWrapperDict) and not wrapper.should_update()


class TeacherHook(Hook):
    """Saves the weights that a pruned model is distilled from, and resumes with them.

    Otherwise a resumed training would use its half-trained weights as the teacher. Loading weights
    without resuming does not load a teacher.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the teacher's weights."""
        loss = _pruning_loss(runner)
        if loss is not None and loss.teacher.weights:
            checkpoint[_TEACHER] = loss.teacher.weights

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Read the teacher's weights if training is resumed."""
        loss = _pruning_loss(runner)
        if loss is not None and runner._resume and _TEACHER in checkpoint:
            loss.teacher.weights = checkpoint[_TEACHER]


def _pruning_loss(runner: Runner) -> PruningLoss | None:
    return getattr(bare_model(runner), "pruning_loss", None)


def bare_model(runner: Runner) -> nn.Module:
    """Return the model without a wrapper for several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


class DueValidationHook(Hook):
    """Validates before the first step if the checkpoint was saved but its validation is missing.

    mmengine saves a step's checkpoint before its validation, and would lose the best weights and
    the metrics that schedulers use. Checkpoints that record no validations are exempt.
    """

    priority = "LOWEST"  # when all hooks are prepared for training

    def before_train(self, runner: Runner) -> None:
        """Run the validation that is due."""
        step = step_of(runner)
        if runner.message_hub.runtime_info.get(VALIDATED, step) != step and _is_due(runner, step):
            runner.logger.info(f"step {step} was saved without its validation, which runs now")
            runner.val_loop.run()


def step_of(runner: Runner) -> int:
    """Completed epochs or iterations, whichever the validation interval counts."""
    by_epoch = isinstance(runner._train_loop, EpochBasedTrainLoop)
    return runner.epoch if by_epoch else runner.iter


def _is_due(runner: Runner, step: int) -> bool:
    loop = runner.train_loop
    known = isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop))
    if not known or runner.val_loop is None or step < loop.val_begin:
        return False
    loop._decide_current_val_interval()
    last = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    return step % loop.val_interval == 0 or step == last
