"""Weights-only files with a record of their origin."""

import hashlib
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .convert import ConvertedStateDict, convert_state_dict
from .fit import model_head_dim
from .io import (
    get_meta,
    plain,
    read_checkpoint,
    weights_file,
    which_weights,
    write_checkpoint,
)

_RECIPE = ("arch", "args", "epoch", "iter", "seed", "experiment_name", "cfg")


def read_source(
    path: str | Path, ema: bool | None = None, prefix: str | None = None
) -> tuple[ConvertedStateDict, dict]:
    """Read a supported checkpoint under our names; for errors see :func:`read_checkpoint`.

    Args:
        path: A local file or folder, see :func:`read_checkpoint`.
        ema: Selects averaged or raw weights of a checkpoint that holds both.
        prefix: Selects entries, and is removed from their names.

    Returns:
        The weights, and a record of them: ``source`` with ``file``, ``sha256``, ``kind``
        and which ``weights`` were taken, the ``recipe`` if the file has one, and the
        arguments of the ``backbone`` if recorded.
    """
    checkpoint = read_checkpoint(path)
    weights = convert_state_dict(checkpoint, prefix=prefix, ema=ema)
    source = dict(
        file=Path(path).name,
        sha256=sha256(path),
        kind=weights.report.source,
        weights=which_weights(checkpoint, ema),
    )
    earlier = get_meta(checkpoint)
    if "source" in earlier:
        source["converted_from"] = earlier["source"]
    known = dict(backbone=earlier["backbone"]) if "backbone" in earlier else {}
    return weights, dict(source=source, recipe=_recipe({**checkpoint, **earlier}), **known)


def write_release(weights: Mapping[str, Tensor], path: str | Path, **meta: Any) -> None:
    """Write weights with a record of their origin, as ``.pth`` or ``.safetensors``."""
    write_checkpoint(dict(meta=meta, state_dict=dict(weights)), path)


def record_backbone(model: nn.Module) -> dict[str, Any]:
    """Record the backbone's arguments that cannot be read from its weights.

    These are its stages and heads, the image size of a ViT's position embedding, and a Swin's
    slicing; none for other backbones.
    """
    backbone = getattr(model, "backbone", model)
    names = ("embed_dims", "thinking_stages", "patch_size", "slicing")
    known = {name: getattr(backbone, name) for name in names if hasattr(backbone, name)}
    if "thinking_stages" not in known:
        return {}
    if head_dim := model_head_dim(backbone):
        known["num_heads"] = known["embed_dims"] // head_dim
        known["img_size"] = tuple(backbone.patch_embed.img_size)
    return known


def sha256(path: str | Path) -> str:
    """Compute the checksum of a file, in hexadecimal digits; of a folder, of its weights."""
    path = Path(path)
    digest = hashlib.sha256()
    with open(weights_file(path) if path.is_dir() else path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _recipe(known: Mapping[str, Any]) -> dict[str, Any]:
    """Training recipe: an earlier record, or mmengine's or timm's."""
    if "recipe" in known:
        return known["recipe"]
    found = {key: known[key] for key in _RECIPE if key in known}
    if isinstance(found.get("args"), Namespace):
        simple = (bool, int, float, str, list, tuple)
        args = vars(found["args"]).items()
        found["args"] = {k: v if isinstance(v, simple) else str(v) for k, v in args}
    return plain(found)
