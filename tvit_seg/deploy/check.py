"""Comparison of exported graphs and of their host loop with the model."""

import copy
from collections.abc import Callable, Sequence
from math import inf

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ExportError
from ..models.gates import FixedGate, Gate
from ..utils.text import first_line
from .formats import constant_batch
from .graphs import Graph
from .host import Arrays, ThinkingHost

RTOL, ATOL = 1e-4, 1e-4
"""An output may be off by ``ATOL + RTOL * size``, where ``size`` is its largest magnitude.

Not by element, as in ``torch.testing``: rounding in a layer grows with the largest values it adds.
"""


@torch.no_grad()
def check_graphs(
    runs: dict[str, Callable[[Arrays], Arrays]], graphs: dict[str, Graph], batches: Sequence[Tensor]
) -> float:
    """Return the largest difference of any output; raise ExportError above the tolerance.

    Args:
        runs: Opened graphs.
        graphs: The modules that they were exported from, in the order in which they run.
        batches: Images (n, 3, H, W), some with other n (and sizes) than graphs were traced on.
    """
    differences = []
    for images in batches:
        size = f"{' x '.join(map(str, images.shape[-2:]))} pixels"
        traced = images.shape[-2:] == batches[0].shape[-2:]
        hint = "" if traced else f", on images of {size}, a new size: export for one (--size)"
        tensors = {"images": images}
        for name, graph in graphs.items():
            inputs = {key: tensors[key] for key in graph.inputs}
            wanted = graph(inputs)
            try:
                found = runs[name]({key: x.numpy() for key, x in inputs.items()})
            except Exception as error:  # each runtime has classes of its own
                message = f"{name} does not run on {len(images)} images of {size}"
                raise ExportError(f"{message}: {first_line(error)}") from error
            for key, x in wanted.items():
                if found[key].shape != tuple(x.shape):
                    raise ExportError(constant_batch(f"{name} ({key})", len(found[key])))
                differences.append(_difference(f"{name}: {key}", found[key], x.numpy(), hint))
            tensors |= wanted
    return max(differences)


def check_host(
    host: ThinkingHost, model: nn.Module, batches: Sequence[Tensor], stage: int | None = None
) -> float:
    """Return the largest difference of predictions; raise ExportError if these or exits differ.

    Besides the gate's own threshold it tries those at which all images exit at stage 0, none, and
    half of the first batch.

    Args:
        host: Runs the exported graphs.
        batches: Images (n, 3, H, W).
        stage: Exit stage of a single graph; None where there is a gate.
    """
    # a copy, whose threshold changes
    gate = copy.copy(model.backbone.gate) if stage is None else FixedGate(stage)
    own = host.threshold
    thresholds = [own]
    if hasattr(gate, "threshold"):
        host.threshold = 0.0
        thresholds += [0.0, inf, float(np.median(host.think(batches[0].numpy())["entropy"][:, 0]))]
    differences = []
    for threshold in thresholds:
        host.threshold = gate.threshold = threshold
        differences += [_compare(host, model, gate, images) for images in batches]
    host.threshold = own
    return max(differences)


@torch.no_grad()
def _compare(host: ThinkingHost, model: nn.Module, gate: Gate, images: Tensor) -> float:
    thinks = model if hasattr(model, "think") else model.backbone  # mmseg's plain segmentor
    thought = thinks.think(images, gate)
    found = host.think(images.numpy())
    exits, entropy = thought.exit_stage.numpy(), thought.entropy.numpy()
    same = found["exit_stage"] == exits
    margin = np.abs(entropy - host.threshold).min(axis=1, initial=inf, where=~np.isnan(entropy))
    if (~same & (margin > _allowed(entropy))).any():
        raise ExportError(
            f"at threshold {host.threshold} images exit after stages "
            f"{found['exit_stage'].tolist()}, in PyTorch after {exits.tolist()}"
        )
    wanted = {"logits": thought.logits, "seg_logits": thought.seg_logits}
    differences = [
        _difference(f"host loop: {name}", found[name][same], x.numpy()[same])
        for name, x in wanted.items()
        if x is not None and name in found
    ]
    return max(differences, default=0.0)


def _allowed(wanted: np.ndarray) -> float:
    return ATOL + RTOL * float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))


def _difference(name: str, found: np.ndarray, wanted: np.ndarray, hint: str = "") -> float:
    difference = float(np.abs(found - wanted).max(initial=0.0))
    allowed = _allowed(wanted)
    if not difference <= allowed and not np.allclose(found, wanted, 0, allowed, equal_nan=True):
        raise ExportError(
            f"{name} is off by {difference:.3g}, at most {allowed:.3g} is allowed{hint}"
        )
    return difference
