"""Does the host loop save what the cost says? All stop, half, and none, taking turns."""

import json
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from math import inf
from pathlib import Path
from statistics import median

import numpy as np
import torch
from prettytable import PrettyTable
from torch import nn

from ..errors import ExportError
from ..models.gates import FixedGate
from ..utils.timing import alternate, compare, machine
from .export import FORMATS, crops


def time_host(
    folder: str | Path,
    model: nn.Module,
    pictures: Sequence[np.ndarray],
    batch: int,
    rounds: int,
    threads: int | None = None,
    warmup: int = 2,
) -> str:
    """Times the host loop on a batch of real images; thresholds decide how many go on.

    Args:
        folder: From :func:`~tvit_seg.deploy.export`, with a gate that has a threshold.
        model: What it was exported from, which is timed as well.
        pictures: (H, W, 3) uint8 BGR, used again if there are too few.
        batch: Number of images.
        rounds: Rounds that count.
        threads: For onnxruntime and PyTorch; None for their own choice.
        warmup: Rounds before them.

    Returns:
        A table: medians, ratios of times and of costs to those where all images think.

    Raises:
        ExportError: If there is nothing to choose.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    manifest = json.loads(Path(folder, "manifest.json").read_text())
    if len(manifest["stages"]) < 2 or "threshold" not in manifest["gate"]:
        raise ExportError(
            "a benchmark compares thresholds: it needs graphs of two stages or more, and a gate "
            "with a threshold"
        )
    host = FORMATS[manifest["format"]](folder, threads)
    images = crops(manifest, pictures)
    images = [x for x in images if x.shape == images[0].shape]
    images = np.stack(list(islice(cycle(images), batch)))
    host.threshold = 0.0
    entropy = host.think(images)["entropy"][:, 0]
    thresholds = {"all stop": inf, "half stop": float(np.median(entropy)), "all think": 0.0}

    def at(threshold: float) -> Callable[[], object]:
        def run() -> object:
            host.threshold = threshold
            return host.think(images)

        return run

    contestants = {name: at(threshold) for name, threshold in thresholds.items()}
    torch_images = torch.from_numpy(images)
    gate = FixedGate(-1)

    @torch.no_grad()
    def run_model() -> object:
        thinks = model if hasattr(model, "think") else model.backbone
        return thinks.think(torch_images, gate)

    seconds = alternate({**contestants, "PyTorch, all think": run_model}, rounds, warmup)
    costs = {name: _cost(manifest, run()) for name, run in contestants.items()}
    table = PrettyTable(["images", "median (ms)", "time / all think", "+-IQR", "GMACs / all think"])
    for name, times in seconds.items():
        ratio, iqr = compare(seconds, lambda t, name=name: t[name] / t["all think"])
        cost = f"{costs[name] / costs['all think']:.3f}" if name in costs else ""
        table.add_row([name, f"{1e3 * median(times):.1f}", f"{ratio:.3f}", f"{iqr:.3f}", cost])
    size = " x ".join(map(str, images.shape[-2:]))
    where = ", ".join(f"{key} {value}" for key, value in machine().items() if key != "threads")
    return f"{batch} images of {size} pixels, {rounds} rounds, threads {threads}; {where}\n{table}"


def _cost(manifest: dict, found: dict[str, np.ndarray]) -> float:
    return float(np.array(manifest["gmacs"])[found["exit_stage"]].sum())
