"""Reading checkpoints without running their code, and writing them atomically."""

import json
import pickle
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from ..errors import CheckpointError
from ..utils.atomic import replacing
from ..utils.text import first_line, some

_METADATA = "tvit_seg"
"""Key of a ``.safetensors`` file's metadata for the JSON of all that is not weights."""

_RAW = ("state_dict", "model", "student", "encoder")
_AVERAGED = ("state_dict_ema", "model_ema", "teacher", "target_encoder")
"""Keys of the weights and of their moving average."""

_RECORDED = dict(
    hidden_size="embed_dims",
    num_attention_heads="num_heads",
    image_size="img_size",
    patch_size="patch_size",
    layer_norm_eps="norm_eps",
    hidden_act="activation",
    architecture="architecture",
)
"""Keys of transformers' and timm's ``config.json`` for what weights do not tell, and ours."""

_TRUSTED: ContextVar[bool] = ContextVar("trusted", default=False)


@contextmanager
def trusting(trust: bool = True) -> Iterator[None]:
    """Let code in checkpoints run, with a warning; there is no other way to run it."""
    token = _TRUSTED.set(trust or _TRUSTED.get())
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a local checkpoint without running any code from it.

    Args:
        path: A ``.safetensors`` file, an ``.npz`` of arrays, a file written by ``torch.save``,
            zip or legacy, or a folder with ``model.safetensors`` and ``config.json``.
        map_location: As in ``torch.load``; a device for ``.safetensors``.

    Returns:
        The content; of a ``.safetensors`` file that :func:`write_checkpoint` did not write, the
        tensors; of an ``.npz`` the arrays ``param/...``, or all, under ``state_dict``; of a folder
        the tensors under ``state_dict``, and its description under ``meta``.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The path is a URL or not a regular file, or the content is damaged, or
            contains NaN, infinity or more than weights (unless :func:`trusting`).
    """
    if "://" in str(path):
        raise CheckpointError(
            f"checkpoint {path}: only local files are read. "
            "Download it and name the file, or set None to start from random weights"
        )
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():  # reading a pipe may not end
        raise CheckpointError(f"checkpoint {path} is not a regular file")

    path.open("rb").close()  # an unreadable file has its own error
    read = {".safetensors": _read_safetensors, ".npz": _read_arrays}.get(path.suffix, _read_pickle)
    try:
        checkpoint = read(path, map_location)
        bad = list(non_finite(checkpoint))
    except (MemoryError, torch.OutOfMemoryError, CheckpointError):
        raise
    except Exception as error:  # a damaged pickle raises almost anything, KeyError to OSError
        cause = first_line(error)
        if "weights_only" in str(error):  # torch's message advises loading it unsafely
            cause = "its pickle is damaged or holds more than weights"
        message = f"({path.stat().st_size} bytes) is truncated or not a checkpoint: {cause}"
        raise CheckpointError(f"checkpoint {path} {message}") from error
    if not isinstance(checkpoint, dict):
        kind = type(checkpoint).__name__
        raise CheckpointError(f"checkpoint {path} holds a {kind}; a dict of weights is needed")
    if bad:
        raise CheckpointError(
            f"checkpoint {path}: {len(bad)} tensors hold NaN or infinity ({some(bad, 3)})"
        )
    return checkpoint


def weights_file(folder: Path) -> Path:
    """Find the file with the weights in a folder of a published model.

    Raises:
        CheckpointError: There is none.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).exists():
            return folder / name
    raise CheckpointError(
        f"checkpoint {folder} is not a regular file, nor a model.safetensors in it"
    )


def _read_folder(path: Path) -> dict[str, Any]:
    """Read a folder as transformers and timm publish models."""
    checkpoint = read_checkpoint(weights_file(path))
    config = path / "config.json"
    if "state_dict" in checkpoint or not config.exists():
        return checkpoint
    try:
        content = json.loads(config.read_text())
    except ValueError as error:
        raise CheckpointError(f"{config} is not JSON: {first_line(error)}") from error
    content = content.get("vision_config", content)  # of CLIP
    backbone = {ours: content[key] for key, ours in _RECORDED.items() if key in content}
    if content.get("use_swiglu_ffn"):  # of DINOv2, whatever hidden_act says
        backbone["activation"] = "silu"
    if "quickgelu" in backbone.get("architecture", ""):
        backbone["activation"] = "quick_gelu"
    return dict(state_dict=checkpoint, meta=dict(backbone=backbone))


def _read_pickle(path: Path, map_location: Any) -> Any:
    archive = zipfile.is_zipfile(path)
    if archive:
        _check_sums(path)
    with path.open("rb") as file, safe_globals([Namespace]):  # timm saves its arguments in one
        try:
            content = torch.load(file, map_location=map_location, weights_only=True)
            if not archive and file.read(1):  # inserted bytes, which shift the weights
                raise EOFError("bytes are left over")
            return content
        except pickle.UnpicklingError:
            # only archives list the classes that they name
            foreign = sorted(get_unsafe_globals_in_checkpoint(path)) if archive else []
            if not (foreign or _TRUSTED.get()):
                raise
    found = f"checkpoint {path} holds {some(foreign) if foreign else 'more than weights'}"
    if not _TRUSTED.get():
        raise CheckpointError(f"{found}, which is more than weights; it was not executed")
    warnings.warn(f"{found}; it is trusted: its code runs", stacklevel=3)
    return torch.load(path, map_location=map_location, weights_only=False)


def _check_sums(path: Path) -> None:
    """Verify the checksums of an archive, which torch and NumPy do not."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} has a wrong checksum")


def _read_safetensors(path: Path, map_location: Any) -> dict[str, Any]:
    weights = load_file(path, device=str(map_location))
    with safe_open(path, framework="pt") as file:
        rest = (file.metadata() or {}).get(_METADATA)
    return weights if rest is None else {**json.loads(rest), "state_dict": weights}


def _read_arrays(path: Path, map_location: Any) -> dict[str, Any]:
    _check_sums(path)
    with np.load(path, allow_pickle=False) as file:
        arrays = {k: torch.from_numpy(file[k]).to(map_location) for k in file.files}
    weights = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
    return {"state_dict": weights or arrays}


def is_finite(x: Tensor) -> bool:
    """Return whether all elements are finite."""
    if not (x.is_floating_point() or x.is_complex()):
        return True
    return bool(torch.isfinite(x.float() if x.element_size() == 1 else x).all())


def non_finite(content: Any, name: str = "") -> Iterator[str]:
    """Yield the paths, such as ``state_dict.head.weight``, of tensors with NaN or infinity."""
    if isinstance(content, Tensor) and not is_finite(content):
        yield name
    items = enumerate(content) if isinstance(content, (list, tuple)) else ()
    if isinstance(content, Mapping):
        items = content.items()
    for key, value in items:
        yield from non_finite(value, f"{name}.{key}" if name else str(key))


def get_state_dict(checkpoint: Mapping[str, Any], ema: bool | None = None) -> dict[str, Tensor]:
    """Find the weights in a checkpoint.

    Raw weights are under ``state_dict``, ``model`` or ``student``, their moving average under
    ``state_dict_ema``, ``model_ema`` or ``teacher``. mmengine's ``EMAHook`` saves the average as
    ``state_dict`` and the raw ones as ``ema_state_dict``. If there is none of these, the checkpoint
    itself is taken. ``module.`` and ``_orig_mod.`` of wrapped and compiled models are stripped.

    Args:
        checkpoint: From :func:`read_checkpoint`.
        ema: Selects averaged or raw weights of a checkpoint that holds both; None takes
            ``state_dict`` or the first that exists.

    Raises:
        CheckpointError: There are no weights.
    """
    raw, averaged = _RAW, _AVERAGED
    if "ema_state_dict" in checkpoint:
        raw, averaged = ("ema_state_dict",), ("state_dict",)
        ema = True if ema is None else ema
    keys = averaged + raw if ema else raw + averaged
    found: Any = next(filter(_is_weights, [*map(checkpoint.get, keys), checkpoint]), None)
    if found is None:
        raise CheckpointError(
            f"no weights found under {', '.join(keys)} or at the top; "
            f"the checkpoint has the keys {some(map(str, checkpoint))}"
        )
    if any(name.startswith("module.") for name in found):
        # mmengine's averaged model has a step counter next to the module
        found = {k.removeprefix("module."): v for k, v in found.items() if k != "steps"}
    if any("_orig_mod." in name for name in found):
        found = {k.replace("_orig_mod.", ""): v for k, v in found.items()}
    return found


def which_weights(checkpoint: Mapping[str, Any], ema: bool | None = None) -> str:
    """Name the weights that :func:`get_state_dict` takes: ``averaged``, ``raw``, or ``only``."""
    swapped = "ema_state_dict" in checkpoint
    if not swapped and not any(checkpoint.get(key) for key in _AVERAGED):
        return "only"
    return "averaged" if (swapped if ema is None else ema) else "raw"


def get_meta(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's ``meta``, an empty dict if there is none.

    Raises:
        CheckpointError: ``meta`` is no dict.
    """
    meta: Any = checkpoint.get("meta") or {}
    if not isinstance(meta, dict):
        raise CheckpointError(f"meta must be a dict, got a {type(meta).__name__}")
    return meta


def recorded_backbone(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the backbone's arguments that a checkpoint records, an empty dict if none."""
    meta = checkpoint.get("meta")
    found = meta.get("backbone") if isinstance(meta, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def _is_weights(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def plain(value: Any, name: str = "checkpoint") -> Any:
    """Copy nested containers as weights-only loading reads them back.

    NumPy scalars become Python numbers, NumPy arrays nested lists, subclasses of ``dict``,
    ``list``, ``tuple`` and of the Python scalars their plain kind. Tensors are not copied.

    Raises:
        TypeError: A value is of another type; the message names its path, starting with ``name``.
    """
    if value is None or isinstance(value, (Tensor, torch.dtype, torch.device, torch.Size)):
        return value
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist(), name)
    for kind in (bool, int, float, complex, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        items = {plain(key, name): plain(part, f"{name}[{key!r}]") for key, part in value.items()}
        if wrong := [repr(key) for key in items if not isinstance(key, (str, int, type(None)))]:
            raise TypeError(f"{name} must have strings or integers as keys, got {some(wrong)}")
        if not hasattr(value, "_metadata"):
            return items
        weights: Any = OrderedDict(items)
        weights._metadata = value._metadata  # versions of the layers in a model's state dict
        return weights
    if isinstance(value, (list, tuple)):
        parts = [plain(part, f"{name}[{i}]") for i, part in enumerate(value)]
        return parts if isinstance(value, list) else tuple(parts)
    raise TypeError(
        f"{name} must be of tensors, numbers, strings, None, lists, tuples and dicts, "
        f"got a {type(value).__module__}.{type(value).__qualname__}"
    )


def write_checkpoint(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Write a checkpoint so that at any moment either the old or the new file is complete.

    Args:
        checkpoint: Content; written as :func:`plain` values.
        path: Target. A ``.safetensors`` file holds the tensors under ``state_dict``, and the rest
            as JSON.

    Raises:
        TypeError: The checkpoint contains something that weights-only loading would reject.
        CheckpointError: A ``.safetensors`` file would contain more than weights and plain values.
    """
    checkpoint = plain(checkpoint)
    if Path(path).suffix != ".safetensors":
        with replacing(path) as temporary:
            torch.save(checkpoint, temporary)
        return
    weights = checkpoint.pop("state_dict", None)
    try:
        rest = json.dumps(checkpoint) if _is_weights(weights) else None
    except TypeError:  # a tensor outside the weights
        rest = None
    if rest is None:
        raise CheckpointError(
            f"{path} must hold weights under state_dict, and else what JSON can hold; "
            "write a .pth file"
        )
    weights = {name: x.clone() for name, x in weights.items()}  # none may share memory
    with replacing(path) as temporary:
        save_file(weights, temporary, metadata={"format": "pt", _METADATA: rest})
