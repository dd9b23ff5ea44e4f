"""Whether written graphs say what the model says, for any number of images."""

from collections.abc import Callable, Sequence
from math import inf

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ExportError
from ..models.gates import FixedGate, Gate
from ..utils.text import first_line
from .graphs import Graph
from .host import Arrays, ThinkingHost
from .trace import frozen_batch

TOLERANCE = 1e-3
"""How far any number may be from PyTorch's, absolutely."""


def check_graphs(
    runs: dict[str, Callable[[Arrays], Arrays]], graphs: dict[str, Graph], batches: Sequence[Tensor]
) -> float:
    """Compares every output of every graph.

    Args:
        runs: Written graphs, opened.
        graphs: The modules they were written from, in the order in which they run.
        batches: Images (n, 3, H, W), of which some are not as many as when the graphs were traced.

    Returns:
        The largest difference.

    Raises:
        ExportError: If a graph takes another number of images only, or differs.
    """
    worst = 0.0
    for images in batches:
        tensors = {"images": images}
        for name, graph in graphs.items():
            with torch.no_grad():
                wanted = graph({key: tensors[key] for key in graph.inputs})
            try:
                found = runs[name]({key: tensors[key].numpy() for key in graph.inputs})
            except Exception as error:  # each runtime has classes of its own
                raise ExportError(_why_not(name, images, error)) from error
            for key, x in wanted.items():
                if found[key].shape != tuple(x.shape):
                    raise ExportError(frozen_batch(f"{name} ({key})", len(found[key])))
                hint = "" if images.shape[-2:] == batches[0].shape[-2:] else _other_size(images)
                worst = max(worst, _difference(f"{name}: {key}", found[key], x.numpy(), hint))
            tensors |= wanted
    return worst


def _why_not(name: str, images: Tensor, error: Exception) -> str:
    return (
        f"{name} does not run on {len(images)} images of {_pixels(images)}, so the exporter has "
        f"frozen the batch or the size: {first_line(error)}"
    )


def _other_size(images: Tensor) -> str:
    return (
        f", on images of {_pixels(images)} where it was traced on others: something in it depends "
        "on the image size, so export for one (--size)"
    )


def _pixels(images: Tensor) -> str:
    return f"{' x '.join(map(str, images.shape[-2:]))} pixels"


def check_host(
    host: ThinkingHost, model: nn.Module, batches: Sequence[Tensor], stage: int | None = None
) -> float:
    """Compares the host loop with the model's own: who stops where, and what is predicted.

    Besides the gate's own threshold it is tried with those at which all images stop, none, and half
    of the first batch.

    Args:
        host: On the written graphs.
        model: The model.
        batches: Images (n, 3, H, W).
        stage: Index of the stage where a single graph stops all images; None where there is a gate.

    Returns:
        The largest difference.

    Raises:
        ExportError: If one decides or predicts otherwise.
    """
    gate = getattr(model, "backbone", model).gate if stage is None else FixedGate(stage)
    own, worst = host.threshold, 0.0
    thresholds = [own]
    if hasattr(gate, "threshold"):
        host.threshold = 0.0
        thresholds += [0.0, inf, float(np.median(host.think(batches[0].numpy())["entropy"][:, 0]))]
    for threshold in thresholds:
        for images in batches:
            worst = max(worst, _compare(host, model, gate, threshold, images))
    host.threshold = own
    return worst


@torch.no_grad()
def _compare(
    host: ThinkingHost, model: nn.Module, gate: Gate, threshold: float, images: Tensor
) -> float:
    host.threshold = threshold
    was = getattr(gate, "threshold", None)
    if was is not None:
        gate.threshold = threshold
    thinks = model if hasattr(model, "think") else model.backbone  # mmseg's plain segmentor
    try:
        thought = thinks.think(images, gate)
    finally:
        if was is not None:
            gate.threshold = was
    found = host.think(images.numpy())
    exits = thought.exit_stage.numpy()
    entropy = thought.entropy.numpy()
    same = found["exit_stage"] == exits
    close = np.abs(entropy - threshold).min(axis=1, initial=inf, where=~np.isnan(entropy))
    if (~same & (close > TOLERANCE)).any():
        raise ExportError(
            f"at threshold {threshold} images stop after stages {found['exit_stage'].tolist()}, in "
            f"PyTorch after {exits.tolist()}"
        )
    worst = 0.0
    for name in ("logits", "seg_logits"):
        x = getattr(thought, name)
        if x is not None and name in found:
            difference = _difference(f"host loop: {name}", found[name][same], x.numpy()[same])
            worst = max(worst, difference)
    return worst


def _difference(name: str, found: np.ndarray, wanted: np.ndarray, hint: str = "") -> float:
    difference = float(np.abs(found - wanted).max(initial=0.0))
    if not difference <= TOLERANCE and not np.allclose(found, wanted, 0, TOLERANCE, equal_nan=True):
        raise ExportError(
            f"{name} is off by {difference:.3g}, at most {TOLERANCE} is allowed{hint}"
        )
    return difference
