"""Loading weights of other code bases: read safely, converted, and only if they fit."""

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from ..errors import CheckpointError
from ..utils.text import some
from .convert import ConvertedStateDict, Report, convert_state_dict
from .io import read_checkpoint, which_weights
from .names_swin import AUTHORS_SWIN


def load_pretrained(
    model: nn.Module, path: str, prefix: str | None = None, ema: bool | None = None
) -> Report:
    """Load a local checkpoint into a thinking backbone or segmentor and log a report.

    Args:
        model: A thinking backbone or segmentor.
        path: A .pth, .bin, .safetensors or .npz file.
        prefix: Selects entries, and is removed from their names.
        ema: Selects averaged or raw weights of a checkpoint that holds both; None takes its
            ``state_dict``.

    Raises:
        CheckpointError: The file is damaged, holds code, is of an unknown kind, or has or lacks
            something that changes what the network computes, see :mod:`.entries`.
    """
    return load_weights(model, read_checkpoint(path), path, prefix, ema)


def load_weights(
    model: nn.Module,
    checkpoint: Mapping[str, Any],
    name: str,
    prefix: str | None = None,
    ema: bool | None = None,
) -> Report:
    """Load a checkpoint that has been read, as :func:`load_pretrained` does.

    ``name`` stands for the checkpoint in the log and in errors.
    """
    converted = convert_named(model, checkpoint, name, prefix, ema)
    report = converted.report
    if (which := which_weights(checkpoint, ema)) != "only":
        report.source += f" ({which})"
    model.load_state_dict(converted, strict=False)
    print_log(f"Loaded {name}: {report}", logger="current")
    slicing = getattr(getattr(model, "backbone", model), "slicing", None)
    needed = _slicing(converted)
    if slicing and needed and slicing != needed:
        print_log(
            f"{name} needs slicing={needed!r}: with {slicing!r} narrow stages will be wrong",
            logger="current",
            level=logging.WARNING,
        )
    return report


def convert_named(
    model: nn.Module,
    checkpoint: Mapping[str, Any],
    name: str | Path,
    prefix: str | None = None,
    ema: bool | None = None,
) -> ConvertedStateDict:
    """Convert a checkpoint for a model; errors begin with the checkpoint's ``name``."""
    try:
        return convert_state_dict(checkpoint, model, prefix, ema)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from error


def thinks(model: nn.Module) -> bool:
    """Return whether a model is, or has, a backbone with thinking stages."""
    return hasattr(getattr(model, "backbone", model), "thinking_stages")


def check_compatible(
    model: nn.Module, state_dict: Mapping[str, Tensor], path: str | Path, shapes: bool = False
) -> None:
    """Reject weights of another architecture that would be loaded without conversion.

    Args:
        model: The model to load into.
        state_dict: Weights by name.
        path: Their file, for the message.
        shapes: Reject any parameter of another shape.

    Raises:
        CheckpointError: Less than half of the parameters have the same name and shape, or one has
            another shape.
    """
    parameters = dict(model.named_parameters())
    own = parameters | dict(model.named_buffers())
    missing = [name for name in parameters if name not in state_dict]
    unexpected = [name for name in state_dict if name not in own]
    differing = {
        name: f"{name} {tuple(state_dict[name].shape)} instead of {tuple(value.shape)}"
        for name, value in parameters.items()
        if name in state_dict and state_dict[name].shape != value.shape
    }
    count = len(parameters) - len({*missing, *differing})
    if 2 * count < len(parameters):
        raise CheckpointError(
            f"checkpoint {path} is of another model: {count} of {len(parameters)} parameters fit, "
            f"less than half; missing: {some(missing)}; unexpected: {some(unexpected)}; "
            f"of another shape: {some(differing.values())}"
        )
    if shapes and differing:
        raise CheckpointError(
            f"checkpoint {path} is of a model with other sizes (another number of classes, another "
            f"img_size?): {some(differing.values())}"
        )


def _slicing(converted: ConvertedStateDict) -> str | None:
    """Slicing that the narrow stages of a Swin need; None without such stages or if unknown."""
    if not any("recycle." in name for name in converted):
        return None
    if converted.report.source.startswith(AUTHORS_SWIN):
        return "leading"
    return converted.report.recorded.get("slicing")


@contextmanager
def strict_loading() -> Iterator[None]:
    """Make mmengine's own loading functions read only local files, without running code."""

    def load_from_strict(filename: str, map_location: Any = None) -> dict[str, Any]:
        return read_checkpoint(filename)

    schemes = CheckpointLoader._schemes
    CheckpointLoader._schemes = OrderedDict.fromkeys(schemes, load_from_strict)
    try:
        yield
    finally:
        CheckpointLoader._schemes = schemes
