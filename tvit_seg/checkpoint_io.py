"""Reading checkpoints without running code out of them, and writing them whole or not at all."""

import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

_PLAIN = (bool, int, float, complex, str, bytes)
_KEPT = (Tensor, torch.dtype, torch.device, torch.Size)


class CheckpointError(ValueError):
    """A file that is no checkpoint, holds more than weights, or belongs to another model."""


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Reads a local checkpoint without running any code out of it.

    Args:
        path: A ``.safetensors`` file or a file written by ``torch.save``, zip or legacy.
        map_location: As in ``torch.load``; a device for ``.safetensors``.

    Returns:
        What the file holds.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The path is a URL, or the file is truncated, is no checkpoint, or holds
            more than weights.
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

    path.open("rb").close()  # a file that may not be read has its own error
    try:
        if path.suffix == ".safetensors":
            return load_file(path, device=str(map_location))
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged pickle raises almost anything, KeyError to OSError
        raise _more_than_weights(path, error) or _broken(path, error) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"checkpoint {path} holds a {type(checkpoint).__name__}; a dict of weights is needed"
        )
    return checkpoint


def _broken(path: Path, error: Exception) -> CheckpointError:
    cause = (str(error) or type(error).__name__).splitlines()[0][:200]
    if isinstance(error, OSError):
        cause = "incomplete archive"
    if isinstance(error, pickle.UnpicklingError):
        cause = "unreadable pickle"  # torch's own text advises to load it unsafely
    size = path.stat().st_size
    return CheckpointError(f"{path} ({size} bytes) is truncated or not a checkpoint: {cause}")


def _more_than_weights(path: Path, error: Exception) -> CheckpointError | None:
    name = None
    if isinstance(error, pickle.UnpicklingError):
        found = re.search(r"(?:GLOBAL|unrecognized function|but got) (\S+)", str(error))
        name = found and found.group(1)
    elif "TorchScript" in str(error):
        name = "a TorchScript program"
    if name is None:
        return None
    return CheckpointError(
        f"checkpoint {path} holds {name}, which is more than weights; it was not executed"
    )


def get_state_dict(checkpoint: Mapping[str, Any], prefer_ema: bool = False) -> dict[str, Tensor]:
    """Finds the weights in a checkpoint.

    Looks under ``state_dict``, ``model``, ``state_dict_ema`` and ``model_ema``, then takes the
    checkpoint itself. The prefix ``module.`` of wrapped models is stripped.

    Args:
        checkpoint: What :func:`read_checkpoint` returned.
        prefer_ema: Take the averaged weights if there are any.

    Returns:
        Tensors by parameter or buffer name.

    Raises:
        CheckpointError: There are no weights.
    """
    keys = ["state_dict", "model", "state_dict_ema", "model_ema"]
    if prefer_ema:
        keys = keys[2:] + keys[:2]
    for candidate in [checkpoint.get(key) for key in keys] + [checkpoint]:
        if _is_weights(candidate):
            break
    else:
        raise CheckpointError(
            f"no weights found under {', '.join(keys)} or at the top; "
            f"the checkpoint has the keys {_some(map(str, checkpoint))}"
        )
    if any(name.startswith("module.") for name in candidate):
        return {name.removeprefix("module."): value for name, value in candidate.items()}
    return candidate


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
        path: Target, read back by :func:`read_checkpoint`.

    Raises:
        TypeError: The checkpoint holds something that weights-only loading would refuse.
        ValueError: The target is a ``.safetensors`` file.
    """
    if Path(path).suffix == ".safetensors":
        raise ValueError(f"{path}: checkpoints are written by torch.save, e.g. as .pth")
    checkpoint = plain(checkpoint)
    with replacing(path) as temporary:
        torch.save(checkpoint, temporary)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a name beside ``path`` to write to; afterwards that file takes the place of ``path``.

    If writing fails, what was written is removed and ``path`` stays as it was.

    Args:
        path: The file to replace; its folder is made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _to_disk(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _to_disk(path.parent)  # the renaming itself


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_compatible(model: nn.Module, state_dict: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuses weights of another architecture.

    Args:
        model: The model that is to take the weights.
        state_dict: Weights by name.
        path: Where they come from, for the message.

    Raises:
        CheckpointError: Fewer than half of the model's parameters, counted in elements, are there
            under the same name and in the same shape.
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
    if 2 * lost <= total:
        return
    raise CheckpointError(
        f"checkpoint {path} is of another model: {total - lost} of {total} parameters match; "
        f"missing: {_some(missing)}; unexpected: {_some(unexpected)}; "
        f"of another shape: {_some(differing.values())}"
    )


def _some(names: Any, limit: int = 5) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + more
