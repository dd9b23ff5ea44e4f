"""Quality and speed of exported graphs on real images, compared with the model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import cycle, islice
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement
from mmseg.models import EncoderDecoder
from mmseg.registry import DATASETS
from prettytable import PrettyTable
from torch import Tensor, nn
from tqdm import tqdm

from ..datasets.check import datasets_of
from ..datasets.corrupt import reader_of
from ..datasets.images import PICTURES, find_pictures
from ..datasets.reader import FileReader
from ..errors import DataError, ExportError
from ..evaluation.metrics import pixel_counts
from ..models.gates import FixedGate
from ..utils.text import first_line
from ..utils.timing import alternate, compare, machine
from .export import prepare_windows
from .host import ThinkingHost


def load_images(cfg: Config, folder: Path | None, count: int) -> list[np.ndarray]:
    """Read up to ``count`` images (H, W, 3) uint8 BGR from a folder, else the validation set.

    The loader is that of the validation set's pipeline.
    """
    if folder is not None:
        dataset: Any = None
        with suppress(DataError):  # only its loader is asked for
            dataset = next(datasets_of(cfg, "val_dataloader"), None)
        endings = (*PICTURES, getattr(dataset, "img_suffix", ".png").lower())
        paths = find_pictures(folder, endings)[:count]
        reader = reader_of(dataset)
        return [_read(reader, dict(img_path=str(path))) for path in paths]
    return [image for image, _ in validation_set(cfg, count)]


def validation_set(cfg: Config, count: int | None = None) -> Iterator[tuple[np.ndarray, dict]]:
    """Yield images (H, W, 3) uint8 BGR as stored, and their dataset items."""
    init_default_scope(cfg.get("default_scope", "mmseg"))
    try:
        if not cfg.get("val_dataloader"):
            raise ExportError("there is no val_dataloader")
        dataset = DATASETS.build(cfg.val_dataloader.dataset)
        total = len(dataset)
    except (FileNotFoundError, ValueError) as error:
        raise ExportError(
            f"the config's validation set cannot be read ({first_line(error)}); graphs "
            "are checked on real images: name some with --images FOLDER"
        ) from error
    reader = reader_of(dataset)
    for index in range(total if count is None else min(count, total)):
        item = dataset[index]
        sample = item["data_samples"]
        if "img_path" in sample:
            yield _read(reader, sample.metainfo), item
        else:  # timm's datasets come as RGB, resized and cropped
            yield item["inputs"].permute(1, 2, 0).numpy()[..., ::-1].copy(), item


def _read(reader: FileReader, info: Mapping[str, Any]) -> np.ndarray:
    """Read an image with the loader of the pipeline, as the host takes it."""
    image = reader.image(info)
    picture = image.clip(0, 255).astype(np.uint8)
    if picture.shape[2:] != (3,) or (picture != image).any():
        raise ExportError(
            f"{info['img_path']}: the host reads images (H, W, 3) of 8 bits, but its loader gives "
            f"{image.shape} of {image.dtype}"
        )
    return picture


@torch.no_grad()
def evaluate(
    model: nn.Module,
    cfg: Config,
    hosts: dict[str, ThinkingHost],
    count: int | None = None,
    stage: int | None = None,
) -> dict[str, float]:
    """Mean IoU of a segmentor, or accuracy of a classifier, in per cent, by name.

    Args:
        model: In evaluation mode; it reads images from the config's pipeline.
        hosts: Exports of it; they read images as stored.
        count: Number of images; None for all.
        stage: Exit stage of single graphs, and then of the model; None where there is a gate.
    """
    segments = isinstance(model, EncoderDecoder)

    def score(labels: Tensor, sample: BaseDataElement) -> Tensor:
        """Return (2, K) intersections and unions in pixels, or (2, 1) correct and all labels."""
        if not segments:
            return torch.tensor([[labels.item() == sample.gt_label.item()], [1]])
        truth, count = sample.gt_sem_seg.data[0], model.decode_head.num_classes
        counts = pixel_counts(labels, truth, count, model.decode_head.ignore_index)
        return torch.from_numpy(counts[:2])

    scores: dict[str, Any] = dict.fromkeys(("PyTorch", *hosts), 0)
    gate = model.backbone.gate
    if stage is not None:
        model.backbone.gate = FixedGate(stage)
    try:
        for image, item in tqdm(validation_set(cfg, count), desc="evaluation", mininterval=2):
            sample = model.test_step({name: [value] for name, value in item.items()})[0]
            labels = {"PyTorch": sample.pred_sem_seg.data[0] if segments else sample.pred_label}
            for name, host in hosts.items():
                labels[name] = torch.from_numpy(np.asarray(host([image])[0].labels))
            for name, found in labels.items():
                scores[name] += score(found, item["data_samples"]).double()
    finally:
        model.backbone.gate = gate
    return {name: 100 * (part / whole).nanmean().item() for name, (part, whole) in scores.items()}


def time_hosts(
    hosts: dict[str, ThinkingHost],
    model: nn.Module,
    images: Sequence[np.ndarray],
    batch: int,
    rounds: int,
    threads: int | None = None,
    warmup: int = 2,
) -> str:
    """Table of host loop times on a batch with all, half or no early exits.

    Args:
        hosts: Exports of ``model`` by name, with a gate that has a threshold; GMACs and the first
            column of ratios are relative to the first one.
        images: (H, W, 3) uint8 BGR, repeated if there are fewer than ``batch``.
        rounds: Counted rounds, after ``warmup`` others.
        threads: Threads of PyTorch; None for its default. The hosts have their own.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    first = next(iter(hosts.values()))
    if len(first.stages) < 2 or "threshold" not in first.manifest["gate"]:
        raise ExportError("a benchmark needs graphs of two stages, and a gate with a threshold")
    inputs = prepare_windows(first.manifest, images)
    inputs = [x for x in inputs if x.shape == inputs[0].shape]
    inputs = np.stack(list(islice(cycle(inputs), batch)))

    def run_host(host: ThinkingHost, threshold: float) -> dict[str, np.ndarray]:
        host.threshold = threshold
        return host.think(inputs)

    contestants: dict[str, Any] = {}
    for name, host in hosts.items():
        middle = float(np.median(run_host(host, 0.0)["entropy"][:, 0]))
        for exits, threshold in (("all stop", inf), ("half stop", middle), ("all think", 0.0)):
            contestants[f"{name}, {exits}"] = partial(run_host, host, threshold)
    gmacs = np.array(first.manifest["gmacs"])
    costs = {name: gmacs[run()["exit_stage"]].sum() for name, run in contestants.items()}
    thinks: Any = model if hasattr(model, "think") else model.backbone
    run_model = torch.no_grad()(partial(thinks.think, torch.from_numpy(inputs), FixedGate(-1)))
    own, whole = "PyTorch, all think", f"{next(iter(hosts))}, all think"
    seconds = alternate({**contestants, own: run_model}, rounds, warmup)
    bases = {"all think": whole, "PyTorch": own}
    heads = [f"time / {base} (+-IQR)" for base in bases]
    table = PrettyTable(["runtime, images", "median (ms)", *heads, "GMACs / all think"])
    for name, times in seconds.items():
        ratios = []
        for base in bases.values():
            pair = {"this": times, "base": seconds[base]}
            ratio, iqr = compare(pair, lambda t: t["this"] / t["base"])
            ratios.append(f"{ratio:.3f} +-{iqr:.3f}")
        cost = f"{costs[name] / costs[whole]:.3f}" if name in costs else ""
        table.add_row([name, f"{1e3 * median(times):.1f}", *ratios, cost])
    size = " x ".join(map(str, inputs.shape[-2:]))
    where = ", ".join(f"{key} {value}" for key, value in machine().items() if key != "threads")
    return f"{batch} images of {size} pixels, {rounds} rounds, threads {threads}; {where}\n{table}"
