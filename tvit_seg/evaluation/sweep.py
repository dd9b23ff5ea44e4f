"""Quality and cost at any number of gate thresholds, from one pass over the data.

Every stage runs once on every image (window) and exits are chosen afterwards, with the same results
as an evaluation at each threshold.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from mmengine.dist import collect_results, get_rank, get_world_size, is_main_process
from mmengine.logging import print_log
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..models.segmentors.same_sizes import same_sizes
from ..utils.checks import check, check_number
from .curves import Curve, gap, oracle_gate, point, random_gate, single_stages
from .metrics import thinks_by_difficulty
from .record import PassRecord
from .stages import Score, StageEvaluator, StagePredictions, build_stage_evaluator


def choose_exits(entropy: np.ndarray, threshold: float) -> np.ndarray:
    """Choose the first stage with a float32 entropy (..., stages) below the threshold, or the last.

    Both are in nats.
    """
    stops = entropy < np.float32(threshold)  # as torch compares with a number
    stops[..., -1] = True
    return stops.argmax(axis=-1)


View = Callable[[int, torch.Tensor, Any], dict[str, Any]]

_OWN = dict(breaks=np.float32, exits=np.int64, scores=np.float64, stage_scores=np.float64)
_MEASURED = dict(entropy=np.float32, gmacs=np.float64, seconds=np.float64)
"""Arrays of an ``ImageSweep`` and of its predictions, with their types."""


@dataclass
class ImageSweep:
    """Results of one image as a step function of the threshold, constant between ``breaks``.

    Attributes:
        breaks: (P - 1,) increasing float32; above each, more windows exit early.
        exits: (P, W) exit stages between the breaks.
        scores: (P, ...) the evaluator's counts.
        stage_scores: (number of stages, ...) the same with all windows in one stage.
        predictions: Source of the above.
        view: What a caller of :func:`sweep` keeps of the image, in JSON's types.
    """

    breaks: np.ndarray
    exits: np.ndarray
    scores: np.ndarray
    stage_scores: np.ndarray
    predictions: StagePredictions
    view: dict[str, Any] | None = None

    @classmethod
    def from_predictions(cls, predictions: StagePredictions, score: Score) -> "ImageSweep":
        """Score every choice of exits that some threshold makes, once."""
        windows, stages = predictions.entropy.shape
        breaks = np.unique(predictions.entropy[:, :-1])
        exits = np.stack([choose_exits(predictions.entropy, t) for t in (*breaks, np.inf)])
        single = np.tile(np.arange(stages)[:, None], windows)
        known, scores = {}, []
        for choice in map(tuple, [*exits.tolist(), *single.tolist()]):
            if choice not in known:
                known[choice] = score(choice)
            scores.append(known[choice])
        scores, stage_scores = np.split(np.stack(scores), [len(exits)])
        return cls(breaks, exits, scores, stage_scores, predictions)

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON; of the metainfo, those that JSON has."""
        own = {name: getattr(self, name).tolist() for name in _OWN}
        found = self.predictions
        measured = {name: getattr(found, name).tolist() for name in _MEASURED}
        values = {
            k: v.item() if isinstance(v, np.generic) else v for k, v in found.metainfo.items()
        }
        metainfo = {k: v for k, v in values.items() if isinstance(v, str | int | float)}
        return dict(own, **measured, metainfo=metainfo, shape=list(found.shape), view=self.view)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ImageSweep":
        """Undo :meth:`to_dict`."""
        arrays = {k: np.array(values[k], kind) for k, kind in {**_OWN, **_MEASURED}.items()}
        measured = {name: arrays.pop(name) for name in _MEASURED}
        shape = tuple(values["shape"])
        predictions = StagePredictions(metainfo=values["metainfo"], shape=shape, **measured)
        return cls(**arrays, predictions=predictions, view=values["view"])

    def at(self, threshold: float) -> int:
        """Find the step that contains a threshold."""
        return int(np.searchsorted(self.breaks, np.float32(threshold), side="left"))


@dataclass
class Sweep:
    """Quality against cost, at any threshold; for ``difficulty_key`` see :func:`sweep`."""

    images: list[ImageSweep]
    evaluator: type[StageEvaluator]
    difficulty_key: str | None = None

    @property
    def num_stages(self) -> int:
        """Number of thinking stages."""
        return len(self.images[0].stage_scores)

    @cached_property
    def labelled(self) -> bool:
        """True if any image has a label; without, there is cost but no quality."""
        return any(image.stage_scores.any() for image in self.images)

    def quality(self, scores: np.ndarray) -> dict[str, Any]:
        """Qualities (...) in per cent of summed scores (..., counts); none without labels."""
        return self.evaluator.quality(scores) if self.labelled else {}

    @cached_property
    def stage_ms(self) -> dict[tuple[int, int], np.ndarray]:
        """For each window size, median milliseconds (number of stages,) of a window."""
        times: dict[tuple[int, int], list[np.ndarray]] = {}
        for image in self.images:
            times.setdefault(image.predictions.shape, []).append(image.predictions.seconds)
        return {shape: 1e3 * np.median(found, axis=0) for shape, found in times.items()}

    @cached_property
    def window_costs(self) -> list[np.ndarray]:
        """GMACs and milliseconds of a window, (number of stages, 2) for each image."""
        found = [image.predictions for image in self.images]
        return [np.stack((p.gmacs, self.stage_ms[p.shape]), axis=1) for p in found]

    @cached_property
    def costs(self) -> list[np.ndarray]:
        """GMACs and milliseconds, (P, 2) for each image."""
        pairs = zip(self.images, self.window_costs, strict=True)
        return [costs[image.exits].sum(1) for image, costs in pairs]

    def thresholds(self, count: int = 5) -> list[float]:
        """Thresholds from 0 to infinity; between them quantiles of the first stage's entropies."""
        first = np.concatenate([image.predictions.entropy[:, 0] for image in self.images])
        inner = np.unique(np.quantile(first, np.linspace(0, 1, count)[1:-1]))
        return [0.0, *inner[inner > 0].tolist(), float("inf")]

    def shorten(self, threshold: float) -> float:
        """Round a threshold to the fewest digits, at least 3, with which all images exit alike."""
        breaks = self._breaks
        step = np.searchsorted(breaks, np.float32(threshold))
        rounded = (float(f"{threshold:.{digits}g}") for digits in range(3, 10))
        same = (x for x in rounded if np.searchsorted(breaks, np.float32(x)) == step)
        return next(same, threshold)

    @cached_property
    def _breaks(self) -> np.ndarray:
        return np.unique(np.concatenate([image.breaks for image in self.images]))

    def row(self, threshold: float) -> dict[str, float]:
        """Evaluate at a threshold in nats.

        Returns:
            ``threshold``, the qualities in per cent, ``stage{i}.share`` (per cent of images or
            windows), ``gmacs`` (average of an image, 10^9), ``ms`` (average of an image, from the
            measured time of each stage and decode head), ``fps`` (images in a second) and, if all
            images have a difficulty, ``thinks.{level}``. Without labels there are no qualities.
        """
        at = [image.at(threshold) for image in self.images]
        exits = [image.exits[i] for image, i in zip(self.images, at, strict=True)]
        scores = np.stack([image.scores[i] for image, i in zip(self.images, at, strict=True)])
        costs = np.stack([costs[i] for costs, i in zip(self.costs, at, strict=True)])
        found = point(scores, costs, self.quality)
        gmacs, ms = found.pop("gmacs"), found.pop("ms")
        every = np.concatenate(exits)
        shares = {
            f"stage{i}.share": 100 * float((every == i).mean()) for i in range(self.num_stages)
        }
        row = dict(threshold=threshold, **found, **shares, gmacs=gmacs, ms=ms, fps=1e3 / ms)
        metas = [image.predictions.metainfo for image in self.images]
        if all(self.difficulty_key in meta for meta in metas):
            known = [meta[self.difficulty_key] for meta in metas]
            row.update(thinks_by_difficulty(exits, known))
        return row

    @cached_property
    def gate(self) -> Curve:
        """Curve of the gate, cheapest first."""
        rows = [self.row(threshold) for threshold in self.thresholds(33)]
        return sorted(rows, key=lambda row: row["gmacs"])

    @cached_property
    def single(self) -> Curve:
        """Points of each stage for all images."""
        return single_stages(*self._stages, self.quality)

    @cached_property
    def random(self) -> Curve:
        """Curve of a gate that stops images at random."""
        return random_gate(*self._stages, self.quality)

    @cached_property
    def oracle(self) -> Curve:
        """Curve of a gate that knows the best threshold, or stage, of each image."""
        parts = zip(self.images, self.costs, *self._stages, strict=True)
        choices = [
            (np.concatenate((image.scores, scores)), np.concatenate((costs, single)))
            for image, costs, scores, single in parts
        ]
        return oracle_gate(choices, self.quality, self.evaluator.correct)

    @property
    def gap(self) -> float:
        """Area between gate and oracle: points of quality, averaged over their common costs."""
        return gap(self.gate, self.oracle, self.evaluator.headline)

    @cached_property
    def _stages(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores (images, stages, ...) and costs (images, stages, 2) of whole images."""
        pairs = zip(self.images, self.window_costs, strict=True)
        costs = [len(image.predictions.entropy) * costs for image, costs in pairs]
        return np.stack([image.stage_scores for image in self.images]), np.stack(costs)


def check_thresholds(thresholds: Sequence[float]) -> list[float]:
    """Return thresholds in nats, which must increase."""
    checked = [check_number("threshold", threshold) for threshold in thresholds]
    fits = bool(checked) and all(a < b for a, b in pairwise(checked))
    check(fits, "thresholds", checked, "increasing, at least one")
    return checked


def check_keep_ratios(keep_ratios: Sequence[float]) -> list[float]:
    """Return keep ratios, each in (0, 1] and given once."""
    ratios = list(keep_ratios)
    fits = ratios and all(0 < r <= 1 for r in ratios) and len(set(ratios)) == len(ratios)
    check(fits, "keep ratios", ratios, "different numbers in (0, 1], at least one")
    return ratios


@torch.no_grad()
def sweep(
    model: torch.nn.Module,
    loader: DataLoader,
    difficulty_key: str | None = None,
    record: PassRecord | None = None,
    view: View | None = None,
) -> Sweep | None:
    """Evaluate a segmentor or classifier, whose gate has a threshold, at all thresholds.

    Args:
        model: The segmentor or classifier.
        loader: Test data, with or without labels; on every process its part.
        difficulty_key: Entry of the metainfo with a difficulty in [0, 1].
        record: Where results are written as they come, for a loader without shuffling. Images that
            an earlier pass has written are not evaluated again.
        view: Maps the number of an image in this process, its input before preprocessing and its
            scorer to what is kept of it; called while the predictions of all stages are at hand.

    Returns:
        The figures, on the main process; None on others.
    """
    dataset: Any = loader.dataset
    evaluator = build_stage_evaluator(model, len(dataset.metainfo["classes"]))
    gate = model.backbone.gate
    check(hasattr(gate, "threshold"), "gate", type(gate).__name__, "a gate with a threshold")
    check(len(dataset) > 0, "number of images", 0, "at least 1")
    model.eval()
    images = []
    if record is not None:
        record = record.part(rank=get_rank(), processes=get_world_size())
        images = [ImageSweep.from_dict(values) for values in record.read()]
        if images:
            print_log(f"{len(images)} images are scored already, in {record.path}", "current")
        record.start(image.to_dict() for image in images)
    start = 0
    for batch in tqdm(loader, desc="sweep", disable=not is_main_process()):
        known, start = max(0, len(images) - start), start + len(batch["inputs"])
        if len(images) >= start:
            continue
        parts = [model.data_preprocessor(part, False) for part in same_sizes(batch)]
        results = [image for part in parts for image in evaluator.predict_stages(**part)]
        found = [ImageSweep.from_predictions(*image) for image in results[known:]]
        if view is not None:
            parts = zip(found, results[known:], batch["inputs"][known:], strict=True)
            for number, (image, (_, score), pixels) in enumerate(parts, len(images)):
                image.view = view(number, pixels, score)
        if record is not None:
            record.add(image.to_dict() for image in found)
        images += found
    images = collect_results(images, len(dataset), "cpu")
    return Sweep(images, type(evaluator), difficulty_key) if is_main_process() else None


def sweep_keep_ratios(
    model: torch.nn.Module,
    loader: DataLoader,
    keep_ratios: Sequence[float],
    difficulty_key: str | None = None,
    record: PassRecord | None = None,
) -> dict[float, Sweep] | None:
    """Call :func:`sweep` for each keep ratio; the model's own is restored afterwards."""
    pruning = model.backbone.pruning
    check(pruning is not None, "pruning", pruning, "set in the model to sweep over keep ratios")
    own = pruning.keep_ratio
    found: dict[float, Any] = {}
    try:
        for keep_ratio in sorted(check_keep_ratios(keep_ratios)):  # images too small end the first
            pruning.keep_ratio = keep_ratio
            part = record and record.part(keep_ratio=keep_ratio)
            found[keep_ratio] = sweep(model, loader, difficulty_key, part)
    finally:
        pruning.keep_ratio = own
    return {ratio: found[ratio] for ratio in keep_ratios} if is_main_process() else None
