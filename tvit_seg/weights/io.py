"""Reading checkpoints without running code out of them, and writing them whole or not at all."""

import json
import pickle
import warnings
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
from torch import Tensor, nn

from ..errors import CheckpointError
from ..utils.atomic import replacing
from ..utils.text import first_line, printable, some
from .limits import check_content, check_file, is_archive
from .pickle_walk import find_foreign

_METADATA = "tvit_seg"
"""Under which a ``.safetensors`` file keeps, as JSON, what a checkpoint holds besides weights."""

_RAW = ("state_dict", "model", "student")
_AVERAGED = ("state_dict_ema", "model_ema", "teacher")
"""Where checkpoints keep their weights and the moving average of them."""

_PLAIN = (bool, int, float, complex, str)
_KEPT = (Tensor, torch.dtype, torch.device, torch.Size)

_TRUSTED: ContextVar[bool] = ContextVar("trusted", default=False)


@contextmanager
def trusting(trust: bool = True) -> Iterator[None]:
    """Within it, code in checkpoints runs, with a warning; there is no other way to run it.

    Args:
        trust: False changes nothing.
    """
    token = _TRUSTED.set(trust or _TRUSTED.get())
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Reads a local checkpoint without running any code out of it.

    Args:
        path: A ``.safetensors`` file, an ``.npz`` of arrays, or a file written by ``torch.save``,
            zip or legacy.
        map_location: As in ``torch.load``; a device for ``.safetensors``.

    Returns:
        What the file holds. Of a ``.safetensors`` file by :func:`write_checkpoint` the same as was
        written, of others the tensors; of an ``.npz`` the arrays ``param/...`` under
        ``state_dict``, or all if there are none.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The path is a URL, or the file is damaged, is no checkpoint, holds more
            than weights (unless :func:`trusting`), asks for more memory than its size justifies, or
            its weights are NaN or infinite.
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
        raise CheckpointError(f"checkpoint {path} is a folder; name a file in it")
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} is no regular file")  # reading may not end

    path.open("rb").close()  # a file that may not be read has its own error
    try:
        checkpoint, held = _read(path, map_location)
        if not isinstance(checkpoint, dict):
            kind = type(checkpoint).__name__
            raise CheckpointError(f"checkpoint {path} holds a {kind}; a dict of weights is needed")
        check_content(checkpoint, path, held)
    except (MemoryError, torch.OutOfMemoryError, CheckpointError):
        raise
    except Exception as error:  # a damaged pickle raises almost anything, KeyError to OSError
        raise _broken(path, error) from error
    return checkpoint


def _read(path: Path, map_location: Any) -> tuple[Any, int]:
    """What a file holds, and how many bytes that was."""
    if path.suffix == ".safetensors":
        return _read_safetensors(path, map_location), path.stat().st_size
    held = check_file(path)
    if path.suffix == ".npz":
        return _read_arrays(path), held
    foreign = find_foreign(path)
    if foreign is None:
        return _load(path, map_location), held
    if not _TRUSTED.get():
        raise CheckpointError(
            f"checkpoint {path} holds {foreign}, which is more than weights; it was not executed"
        )
    foreign = printable(foreign)
    warnings.warn(f"checkpoint {path} holds {foreign}; it is trusted: its code runs", stacklevel=4)
    return torch.load(path, map_location=map_location, weights_only=False), held


def _load(path: Path, map_location: Any) -> Any:
    """As ``torch.load``; a file of its old format, which has no checksums, must end where it does.

    Bytes that were put in shift the weights, and leave some over.
    """
    safe = torch.serialization.safe_globals([Namespace])  # a mere bag of attributes
    with path.open("rb") as file, safe:
        found = torch.load(file, map_location=map_location, weights_only=True)
        left = path.stat().st_size - file.tell()
    if left and not is_archive(path):
        raise ValueError(f"{left} bytes are left over")
    return found


def _read_safetensors(path: Path, map_location: Any) -> dict[str, Any]:
    weights = load_file(path, device=str(map_location))
    with safe_open(path, framework="pt") as file:
        rest = (file.metadata() or {}).get(_METADATA)
    if rest is None:
        return weights
    known = json.loads(rest)
    if not isinstance(known, dict):
        raise CheckpointError(f"checkpoint {path}: {_METADATA} is no dict")
    return {**known, "state_dict": weights}


def _read_arrays(path: Path) -> dict[str, Any]:
    if not is_archive(path):
        raise ValueError("no archive of arrays")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    weights = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
    return {"state_dict": weights or arrays}


def _broken(path: Path, error: Exception) -> CheckpointError:
    cause = first_line(error)
    if isinstance(error, OSError):
        cause = "incomplete archive"
    if isinstance(error, pickle.UnpicklingError):
        cause = "unreadable pickle"  # torch's own text advises to load it unsafely
    size = path.stat().st_size
    if "can't allocate memory" in cause:
        return CheckpointError(f"checkpoint {path} ({size} bytes) asks for too much memory")
    return CheckpointError(f"{path} ({size} bytes) is truncated or not a checkpoint: {cause}")


def get_state_dict(checkpoint: Mapping[str, Any], ema: bool | None = None) -> dict[str, Tensor]:
    """Finds the weights in a checkpoint.

    Raw weights lie under ``state_dict``, ``model`` or ``student``, their moving average under
    ``state_dict_ema``, ``model_ema`` or ``teacher``. mmengine's ``EMAHook`` saves the average as
    ``state_dict`` and the raw ones as ``ema_state_dict``. If there is none of these, the checkpoint
    itself is taken. The prefix ``module.`` of wrapped models is stripped.

    Args:
        checkpoint: What :func:`read_checkpoint` returned.
        ema: Whether to take averaged weights or raw ones, if the file has both; None takes what
            stands under ``state_dict`` or the first that is there.

    Returns:
        Tensors by parameter or buffer name.

    Raises:
        CheckpointError: There are no weights.
    """
    raw, averaged = _RAW, _AVERAGED
    if "ema_state_dict" in checkpoint:
        raw, averaged = ("ema_state_dict",), ("state_dict",)
        ema = True if ema is None else ema
    keys = averaged + raw if ema else raw + averaged
    for candidate in [*map(checkpoint.get, keys), checkpoint]:
        if _is_weights(candidate):
            break
    else:
        raise CheckpointError(
            f"no weights found under {', '.join(keys)} or at the top; "
            f"the checkpoint has the keys {some(map(str, checkpoint))}"
        )
    if any(name.startswith("module.") for name in candidate):
        # mmengine's average counts its steps beside the module
        candidate = {name: value for name, value in candidate.items() if name != "steps"}
        return {name.removeprefix("module."): value for name, value in candidate.items()}
    return candidate


def get_meta(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a checkpoint says about itself under ``meta``.

    Args:
        checkpoint: What :func:`read_checkpoint` returned.

    Raises:
        CheckpointError: ``meta`` is no dict.
    """
    meta = checkpoint.get("meta")
    if meta is not None and not isinstance(meta, Mapping):
        raise CheckpointError(f"meta is a {type(meta).__name__}, a dict is needed")
    return meta or {}


def which_weights(checkpoint: Mapping[str, Any], ema: bool | None = None) -> str:
    """Says which weights :func:`get_state_dict` takes: ``averaged``, ``raw``, or the ``only`` ones.

    Args:
        checkpoint: What :func:`read_checkpoint` returned.
        ema: As there.
    """
    swapped = "ema_state_dict" in checkpoint
    if not swapped and not any(checkpoint.get(key) for key in _AVERAGED):
        return "only"
    return "averaged" if (swapped if ema is None else ema) else "raw"


def _is_weights(obj: Any) -> bool:
    return (
        isinstance(obj, Mapping)
        and bool(obj)
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in obj.items())
    )


def plain(obj: Any, name: str = "checkpoint") -> Any:
    """Copies nested containers as what weights-only loading reads back.

    NumPy scalars become Python numbers, NumPy arrays nested lists, subclasses of ``dict``,
    ``list``, ``tuple`` and of the Python scalars their plain kind. Tensors are not copied.

    Args:
        obj: The value.
        name: How to call it in an error message.

    Returns:
        The plain value.

    Raises:
        TypeError: Something else is in there; the message says where.
    """
    if obj is None or isinstance(obj, _KEPT):
        return obj
    if isinstance(obj, (np.generic, np.ndarray)):
        return plain(obj.tolist(), name)
    for kind in _PLAIN:
        if isinstance(obj, kind):
            return obj if type(obj) is kind else kind(obj)
    if isinstance(obj, Mapping):
        items = {plain(key, name): plain(value, f"{name}[{key!r}]") for key, value in obj.items()}
        if odd := [repr(key) for key in items if not isinstance(key, (str, int, type(None)))]:
            raise TypeError(f"{name} has the keys {some(odd)}; texts and whole numbers are read")
        if not hasattr(obj, "_metadata"):
            return items
        weights = OrderedDict(items)
        weights._metadata = obj._metadata  # versions of the layers in a model's state dict
        return weights
    if isinstance(obj, (list, tuple)):
        kind = list if isinstance(obj, list) else tuple
        return kind(plain(value, f"{name}[{i}]") for i, value in enumerate(obj))
    raise TypeError(
        f"{name} is a {type(obj).__module__}.{type(obj).__qualname__}; a checkpoint may hold "
        "tensors, numbers, strings, None, lists, tuples and dicts only"
    )


def write_checkpoint(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Writes a checkpoint so that at any moment either the old or the new file is complete.

    Args:
        checkpoint: Made plain before it is written, see :func:`plain`.
        path: Target, read back by :func:`read_checkpoint`. A ``.safetensors`` file holds the
            tensors under ``state_dict``, and the rest as JSON.

    Raises:
        TypeError: The checkpoint holds something that weights-only loading would refuse.
        ValueError: A ``.safetensors`` file is to hold more than weights and plain values.
    """
    checkpoint = plain(checkpoint)
    if Path(path).suffix == ".safetensors" and not _is_weights(checkpoint.get("state_dict")):
        raise ValueError(f"{path}: there are no weights under state_dict; write a .pth file")
    with replacing(path) as temporary:
        if Path(path).suffix == ".safetensors":
            rest = {key: value for key, value in checkpoint.items() if key != "state_dict"}
            weights = {name: x.clone() for name, x in checkpoint["state_dict"].items()}  # unshared
            try:
                metadata = {"format": "pt", _METADATA: json.dumps(rest)}
            except TypeError as error:
                raise ValueError(f"{path}: {error}; write a .pth file") from error
            save_file(weights, temporary, metadata=metadata)
        else:
            torch.save(checkpoint, temporary)


def check_compatible(
    model: nn.Module, state_dict: Mapping[str, Tensor], path: str | Path, shapes: bool = False
) -> None:
    """Refuses weights of another architecture.

    Args:
        model: The model that is to take the weights.
        state_dict: Weights by name.
        path: Where they come from, for the message.
        shapes: Whether every parameter that is there must have the same shape.

    Raises:
        CheckpointError: Fewer than half of the model's parameters, counted in elements, are there
            under the same name and in the same shape; or one has another shape.
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
    total = sum(value.numel() for value in parameters.values())
    lost = sum(parameters[name].numel() for name in [*missing, *differing])
    if shapes and differing and 2 * lost <= total:
        raise CheckpointError(
            f"checkpoint {path} is of a model with other sizes (another number of classes, another "
            f"img_size?): {some(differing.values())}"
        )
    if 2 * lost <= total:
        return
    raise CheckpointError(
        f"checkpoint {path} is of another model: {total - lost} of {total} parameters match; "
        f"missing: {some(missing)}; unexpected: {some(unexpected)}; "
        f"of another shape: {some(differing.values())}"
    )
