"""Gradients on their way to a step of the optimizer outlive a restart."""

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

from ...weights.io import is_finite

_KEY = "accumulated_gradients"


class GradientHook(Hook):
    """Saves what ``accumulative_counts`` has accumulated so far, and resumes with it.

    mmengine would lose it where the iteration is no multiple of ``accumulative_counts``.
    """

    priority = "VERY_LOW"  # after the look for what is not finite

    def __init__(self):
        self._loaded: dict[str, torch.Tensor] = {}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds the gradients, if there are any and training may be resumed from the checkpoint.

        Args:
            runner: Has the model.
            checkpoint: What will be saved.
        """
        if "optimizer" not in checkpoint or not _are_pending(runner):
            return
        gradients = {
            name: parameter.grad.cpu()
            for name, parameter in _model(runner).named_parameters()
            if parameter.grad is not None
        }
        # float16 may overflow, which the loss scale answers by leaving the whole step out
        if all(map(is_finite, gradients.values())):
            checkpoint[_KEY] = gradients

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes the gradients, if training is resumed.

        Args:
            runner: Has the model.
            checkpoint: What was loaded.

        Raises:
            ValueError: They are not this model's.
        """
        if not runner._resume or _KEY not in checkpoint:
            return
        self._loaded = checkpoint[_KEY]
        parameters = dict(_model(runner).named_parameters())
        for name, gradient in self._loaded.items():
            if name not in parameters or gradient.shape != parameters[name].shape:
                raise ValueError(f"{_KEY} has {name!r} of shape {tuple(gradient.shape)}")

    def before_train(self, runner: Runner) -> None:
        """Puts the gradients where the next iteration adds to them.

        Args:
            runner: Has the model.
        """
        gradients, self._loaded = self._loaded, {}
        if not gradients or not _are_pending(runner):
            return
        for name, parameter in _model(runner).named_parameters():
            if name in gradients:
                parameter.grad = gradients[name].to(parameter)
        runner.logger.info("accumulated gradients were saved, too: none are lost")


def average_gradients(runner: Runner) -> None:
    """Has all processes go on with the average of what each has accumulated so far.

    Only the first one's can be saved. The step takes their average in any case.

    Args:
        runner: Of every process.
    """
    if get_world_size() == 1 or not _are_pending(runner):
        return
    parameters = [one for one in _model(runner).parameters() if one.requires_grad]
    there = torch.tensor([float(one.grad is not None) for one in parameters])
    all_reduce(there)
    for parameter, count in zip(parameters, there.tolist(), strict=True):
        if count:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            all_reduce(parameter.grad, op="mean")


def _are_pending(runner: Runner) -> bool:
    wrapper = runner.optim_wrapper
    return not isinstance(wrapper, OptimWrapperDict) and not wrapper.should_update()


def _model(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
