"""``torch.compile`` for thinking models, whose batches shrink from stage to stage."""

import re
import warnings
from typing import Any

import torch
from torch import nn

from ..utils.text import first_line

_BLOCK, _LAYER = (re.compile(rf"(?:^|\.){name}\.\d+$") for name in ("blocks", "layers"))
# graphs that the blocks of one model may need: for each stage a few batch and image sizes
_RECOMPILES = 64


def compile_blocks(model: nn.Module, **options: Any) -> bool:
    """Compile the transformer blocks, also those of decode heads, in place; names stay.

    Blocks share compiled graphs, and the batch size becomes dynamic once a second one occurs: each
    stage compiles at most three times per image size (for the first batch, a single image, and any
    other number). Without a working compiler a warning is given and nothing changes.

    Args:
        model: A thinking backbone, segmentor or classifier.
        **options: Of ``torch.compile``.

    Returns:
        True if the model was compiled.
    """
    device = next(model.parameters()).device
    reason = why_not(device, **options)
    if reason is not None:
        warnings.warn(f"not compiled, everything runs as before: {reason}", stacklevel=2)
        return False
    config = torch._dynamo.config
    # its name before torch 2.7
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    setattr(config, limit, max(getattr(config, limit), _RECOMPILES))
    for module in _blocks(model):
        module.compile(**options)
    return True


def compile_as_configured(model: nn.Module, option: bool | dict | None) -> None:
    """Compile if ``compile`` of a config is True or options of ``torch.compile``."""
    if option:
        compile_blocks(model, **({} if option is True else option))


def _blocks(model: nn.Module) -> list[nn.Module]:
    """Transformer blocks, by name: ``blocks.N``, and ``layers.N`` that contain none."""
    blocks = [name for name, _ in model.named_modules() if _BLOCK.search(name)]
    for name, _ in model.named_modules():
        apart = not any(f"{other}.".startswith(f"{name}.") for other in blocks)
        inside = any(name.startswith(f"{other}.") for other in blocks)
        if _LAYER.search(name) and apart and not inside:
            blocks.append(name)
    return [model.get_submodule(name) for name in blocks]


def why_not(device: torch.device, **options: Any) -> str | None:
    """Reason that compiling for a device fails, found by trying; None if it works."""
    try:
        torch.compile(_probe, **options)(torch.ones(4, device=device))
    except RuntimeError as error:  # no g++, Triton or recent GPU: each raises its own class
        return first_line(error)
    return None


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
