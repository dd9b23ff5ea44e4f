"""Quality and cost at any number of gate thresholds, from one pass over the data.

Every stage runs once on every image (window) and the choice is made afterwards, which gives just
what an evaluation at each threshold would give.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, collect_results, is_main_process
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from torch import Tensor
from tqdm import tqdm

from ..gates import ProbeGate
from ..gates.base import check_threshold
from ..segmentors import ThinkingEncoderDecoder
from ..segmentors.windows import Windows
from .curves import Curve, gap, oracle_gate, quality, random_gate, single_stages
from .thinking_metric import thinks_by_difficulty


@dataclass
class Sweep:
    """Quality against cost.

    Attributes:
        rows: For each threshold ``threshold``, ``mIoU``, ``aAcc``, ``mAcc``, ``stage{i}.share``
            (all per cent, shares of images or windows), ``gmacs`` (average of an image, 10^9) and,
            with a difficulty, ``thinks.{level}``.
        single: Each stage for all images.
        random: A gate that draws lots.
        oracle: A gate that knows which images gain.
    """

    rows: list[dict[str, float]]
    single: Curve
    random: Curve
    oracle: Curve

    @property
    def gate(self) -> Curve:
        """The gate that was swept, cheapest first."""
        points = sorted((row["gmacs"], row["mIoU"]) for row in self.rows)
        return [dict(gmacs=gmacs, mIoU=miou) for gmacs, miou in points]

    @property
    def gap(self) -> float:
        """Area between gate and oracle: mIoU points, averaged over the costs they share."""
        return gap(self.gate, self.oracle)


def choose_exits(entropy: Tensor, threshold: float) -> Tensor:
    """Where each image or window would stop.

    Args:
        entropy: (..., number of stages) in nats.
        threshold: In nats.

    Returns:
        (...) index of the first stage with an entropy below the threshold, else of the last.
    """
    stops = entropy < threshold
    stops[..., -1] = True
    return stops.int().argmax(dim=-1)


@torch.no_grad()
def sweep(
    model: ThinkingEncoderDecoder,
    loader: Iterable,
    thresholds: Sequence[float] | None = None,
    ignore_index: int = 255,
    difficulty_key: str | None = None,
) -> "Sweep | None":
    """Evaluates a segmentor at several thresholds.

    Args:
        model: Segmentor whose gate has a threshold.
        loader: Test data, on every process its part.
        thresholds: In nats, >= 0; None for 0, the quartiles of the first stage's entropies, and
            infinity.
        ignore_index: Label of pixels to leave out.
        difficulty_key: Entry of the metainfo with a difficulty in [0, 1], if there is one.

    Returns:
        The figures, on the main process; None on others.

    Raises:
        ValueError: If the model has no gate with a threshold, or a threshold is negative or NaN.
    """
    gate = getattr(getattr(model, "backbone", None), "gate", None)
    if not hasattr(gate, "threshold"):
        raise ValueError(f"a gate with a threshold is needed to sweep, the model has {gate!r}")
    model.eval()
    if thresholds is None:
        thresholds = [0.0, *_quartiles(model, loader), float("inf")]
    thresholds = [check_threshold(threshold) for threshold in thresholds]
    classes = len(loader.dataset.metainfo["classes"])
    stages = torch.arange(model.num_stages)
    results = []
    for batch in tqdm(loader, desc="sweep", disable=not is_main_process()):
        batch = model.data_preprocessor(batch, False)
        for sample, entropy, logits, windows in _look(model, **batch):
            exits = [choose_exits(entropy, t) for t in thresholds]
            # then what all windows in one stage would give
            exits = torch.stack([*exits, *stages[:, None].expand(-1, len(windows))])  # (T + n, W)
            areas = _judge(model, sample, exits, logits, windows, classes, ignore_index)
            costs = model.stage_gmacs(windows)[exits].sum(1)  # (T + n,)
            results.append(
                dict(
                    exits=exits.numpy(),
                    areas=areas,
                    gmacs=costs.numpy(),
                    difficulty=sample.get(difficulty_key) if difficulty_key else None,
                )
            )
    results = collect_results(results, len(loader.dataset), "cpu")
    return _summarise(thresholds, results, model.num_stages) if is_main_process() else None


def _quartiles(model: ThinkingEncoderDecoder, loader: Iterable) -> list[float]:
    """Of the entropies after the first stage, the only one that runs."""
    probe, entropies = ProbeGate(model.backbone.gate, stage=0), []
    for batch in tqdm(loader, desc="entropies", disable=not is_main_process()):
        inputs = model.data_preprocessor(batch, False)["inputs"]
        for _, crops in model.windows(inputs).crops(inputs, model.window_batch_size):
            thought = model.backbone.think(crops, probe, model.decoder(crops))
            entropies += thought.entropy[:, 0].tolist()
    found = [np.quantile(entropies, (0.25, 0.5, 0.75)).tolist()]
    broadcast_object_list(found)  # the main process speaks for its part of the data
    return found[0]


def _look(model: ThinkingEncoderDecoder, inputs: Tensor, data_samples: list[SegDataSample]):
    """All stages of all windows.

    Yields:
        Of each image the data sample, entropies (W, stages), logits (stages, W, K, h, w), windows.
    """
    windows = model.windows(inputs)
    entropies = [[] for _ in range(model.num_stages)]
    logits = [[] for _ in range(model.num_stages)]
    for _, crops in windows.crops(inputs, model.window_batch_size):
        for output in model.backbone.forward_stages(crops):
            output.images, output.decode = crops, model.decoder(crops)
            entropies[output.stage].append(model.backbone.gate.entropy(output).float())
            logits[output.stage].append(
                output.seg_logits[..., : crops.shape[-2], : crops.shape[-1]]
            )
    shape = (len(inputs), len(windows))
    entropies = torch.stack([torch.cat(e).unflatten(0, shape) for e in entropies], dim=-1).cpu()
    logits = [torch.cat(parts).unflatten(0, shape) for parts in logits]
    for i, sample in enumerate(data_samples):
        yield sample, entropies[i], [stage[i] for stage in logits], windows


def _judge(
    model: ThinkingEncoderDecoder,
    sample: SegDataSample,
    exits: Tensor,
    logits: list[Tensor],
    windows: Windows,
    classes: int,
    ignore_index: int,
) -> np.ndarray:
    """(T + n, 4, K) intersection, union, prediction, label areas; equal exits are judged once."""
    found = {}
    for chosen in map(tuple, exits.tolist()):
        if chosen in found:
            continue
        slots = [(0, w) for w in range(len(windows))]
        parts = torch.stack([logits[stage][w] for w, stage in enumerate(chosen)])
        canvas = windows.average(windows.add(None, slots, parts, 1))
        result = model.postprocess_result(canvas, [sample.clone()])[0]
        prediction = result.pred_sem_seg.data.squeeze(0)
        labels = sample.gt_sem_seg.data.squeeze(0).to(prediction)
        areas = IoUMetric.intersect_and_union(prediction, labels, classes, ignore_index)
        found[chosen] = torch.stack(areas).double().numpy()
    return np.stack([found[tuple(chosen)] for chosen in exits.tolist()])


def _summarise(thresholds: list[float], results: list[dict], num_stages: int) -> Sweep:
    areas = np.stack([r["areas"] for r in results])  # (images, T + n, 4, K)
    costs = np.stack([r["gmacs"] for r in results])  # (images, T + n)
    rows = []
    for t, threshold in enumerate(thresholds):
        exits = [r["exits"][t] for r in results]
        every = np.concatenate(exits)
        row = dict(
            threshold=threshold,
            **quality(areas[:, t].sum(0)),
            **{f"stage{i}.share": 100 * float((every == i).mean()) for i in range(num_stages)},
            gmacs=float(costs[:, t].mean()),
        )
        if results[0]["difficulty"] is not None:
            row.update(thinks_by_difficulty(exits, [r["difficulty"] for r in results]))
        rows.append(row)
    singles = (areas[:, len(thresholds) :], costs[:, len(thresholds) :])
    return Sweep(
        rows=rows,
        single=single_stages(*singles),
        random=random_gate(*singles),
        oracle=oracle_gate(*singles),
    )
