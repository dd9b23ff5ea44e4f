"""Anybody's weights into a model: read safely, converted, and only if they fit."""

import logging
from collections.abc import Mapping

from mmengine.logging import print_log
from torch import nn

from ..errors import CheckpointError
from .convert import ConvertedStateDict, Report, convert_state_dict
from .io import get_state_dict, read_checkpoint, which_weights
from .names_swin import AUTHORS_SWIN


def load_pretrained(
    model: nn.Module, path: str, prefix: str | None = None, ema: bool | None = None
) -> Report:
    """Loads a checkpoint file into a backbone or segmentor and logs what was read.

    Args:
        model: A thinking backbone or segmentor.
        path: A local file: .pth, .bin or .safetensors.
        prefix: Only the entries whose names start so.
        ema: Whether to take averaged or raw weights of a checkpoint that holds both; None takes
            what it holds as ``state_dict``.

    Returns:
        The report.

    Raises:
        CheckpointError: If the file is damaged, holds code, is of an unknown kind, or fits less
            than half of the model's tensors. Tensors are counted, since a narrow model fills a part
            of each.
    """
    return load_weights(model, read_checkpoint(path), path, prefix, ema)


def load_weights(
    model: nn.Module,
    checkpoint: Mapping,
    name: str,
    prefix: str | None = None,
    ema: bool | None = None,
) -> Report:
    """The same for a checkpoint that was read already.

    Args:
        model: A thinking backbone or segmentor.
        checkpoint: Weights, or a dict that holds them.
        name: How to call it in the log and in errors.
        prefix: As in :func:`load_pretrained`.
        ema: As there.

    Returns:
        The report.

    Raises:
        CheckpointError: If it is of an unknown kind or fits less than half of the model's tensors.
    """
    try:
        converted = convert_state_dict(get_state_dict(checkpoint, ema), model, prefix)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from error
    report = converted.report
    if (which := which_weights(checkpoint, ema)) != "only":
        report.source += f" ({which})"
    total = len(model.state_dict())
    if len(converted) < total / 2:
        raise CheckpointError(
            f"{name} fits {len(converted)} of the model's {total} tensors, less than half: {report}"
        )
    model.load_state_dict(converted, strict=False)
    print_log(f"Loaded {name}: {report}", logger="current")
    slicing = getattr(getattr(model, "backbone", model), "slicing", None)
    needed = _slicing(checkpoint, converted)
    if slicing and needed and slicing != needed:
        print_log(
            f"{name} needs slicing={needed!r}: with {slicing!r} narrow stages will be wrong",
            logger="current",
            level=logging.WARNING,
        )
    return report


def _slicing(checkpoint: Mapping, converted: ConvertedStateDict) -> str | None:
    """How narrow stages of a Swin read the weights, if there are such stages and it is known."""
    if not any("recycle." in name for name in converted):
        return None
    if converted.report.source.startswith(AUTHORS_SWIN):
        return "leading"
    meta = checkpoint.get("meta")
    recorded = meta.get("backbone") if isinstance(meta, Mapping) else None
    return recorded.get("slicing") if isinstance(recorded, Mapping) else None
