"""What a checkpoint says of the training that it is to continue makes sense."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner

from ..errors import CheckpointError
from ..weights.io import get_meta
from .config_errors import LARGEST

_RUNTIME_KINDS = dict(
    best_ckpt=(str, type(None)),
    best_score=(int, float),
    keep_ckpt_ids=list,
    last_ckpt=str,
    validated_step=int,
)
"""The kind of value that hooks expect to find again, by the start of its name."""
_SHAPED = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "sum")
"""What optimizers keep in the shape of a parameter; others are theirs to check."""
_MOST = torch.finfo(torch.float32).max


def check_training_state(checkpoint: Mapping[str, Any], path: str) -> None:
    """Looks at a checkpoint before training is resumed from it.

    Args:
        checkpoint: What was read.
        path: From where, for messages.

    Raises:
        CheckpointError: It holds weights only, or something that makes no sense.
    """
    meta = get_meta(checkpoint)
    absent = [key for key in ("meta", "message_hub", "optimizer") if key not in checkpoint]
    absent += [f"meta.{key}" for key in ("epoch", "iter") if key not in meta]
    if absent:
        raise CheckpointError(
            f"cannot resume from {path}: it holds weights only (no {', '.join(absent)}); "
            "use load_from"
        )
    for key in ("epoch", "iter"):
        if type(meta[key]) is not int or not 0 <= meta[key] <= LARGEST:
            raise CheckpointError(
                f"cannot resume from {path}: meta.{key}={_show(meta[key])} is no step"
            )
    for key, value in checkpoint["message_hub"].get("runtime_info", {}).items():
        kind = next((kind for name, kind in _RUNTIME_KINDS.items() if key.startswith(name)), object)
        if not isinstance(value, kind) or (
            key == "keep_ckpt_ids" and not all(isinstance(step, int) for step in value)
        ):
            raise CheckpointError(f"cannot resume from {path}: {key}={_show(value)} makes no sense")


def check_resumed(runner: Runner, path: str) -> None:
    """Looks at a training that was resumed, before it goes on.

    Args:
        runner: Has read the checkpoint.
        path: The checkpoint, for messages.

    Raises:
        CheckpointError: It is beyond the end of this training, or its optimizer cannot be this one.
    """
    loop = runner.train_loop
    unit = "epoch" if isinstance(loop, EpochBasedTrainLoop) else "iter"
    done, most = getattr(loop, unit), getattr(loop, f"max_{unit}s")
    if done > most:
        raise CheckpointError(
            f"cannot resume from {path}: meta.{unit}={done} is beyond the end of this training, "
            f"train_cfg.max_{unit}s={most}"
        )
    if done == most:
        runner.logger.info(f"{path} is of a training that is finished: {unit} {done} is the last")
    wrapper = runner.optim_wrapper
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    for wrong in (text for one in wrappers for text in _odd(one.optimizer)):
        raise CheckpointError(f"cannot resume from {path}: optimizer.{wrong}")


def _odd(optimizer: torch.optim.Optimizer) -> Iterable[str]:
    """What the optimizer cannot have come to by itself."""
    for index, group in enumerate(optimizer.param_groups):
        for name, default in optimizer.defaults.items():
            value = group.get(name, default)  # older versions have fewer
            if not _is_like(value, default) or (name == "lr" and float(value) < 0):
                yield f"param_groups[{index}].{name}={_show(value)} makes no sense"
    for parameter, state in optimizer.state.items():
        for name in sorted(state.keys() & set(_SHAPED)):
            value = state[name]
            if isinstance(value, torch.Tensor) and value.shape != parameter.shape:
                yield (
                    f"state: {name} is of shape {tuple(value.shape)}, its parameter of "
                    f"{tuple(parameter.shape)}"
                )


def _is_like(value: Any, default: Any) -> bool:
    """Whether an option of an optimizer is of its default's kind, and float32 holds it."""
    if isinstance(default, (tuple, list)):
        return (
            isinstance(value, (tuple, list))
            and len(value) == len(default)
            and all(map(_is_like, value, default))
        )
    if not _is_number(default):
        return True
    return _is_number(value) and bool(abs(value) <= _MOST)


def _is_number(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _show(value: Any, most: int = 60) -> str:
    if isinstance(value, int) and abs(value) >= 10**most:
        return f"(a number of more than {most} digits)"
    return f"{value!r:.{most}}"
