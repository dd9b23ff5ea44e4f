"""Quality and cost at any number of gate thresholds, from one pass over the data.

Every stage runs once on every image (window) and the choice is made afterwards, which gives just
what an evaluation at each threshold would give.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from mmengine.dist import collect_results, is_main_process
from tqdm import tqdm

from ..models.gates.base import check_threshold
from .curves import Curve, gap, oracle_gate, point, random_gate, single_stages
from .stages import Judge, Look, Score, judge_for
from .thinking_metric import thinks_by_difficulty


def choose_exits(entropy: np.ndarray, threshold: float) -> np.ndarray:
    """Where each image or window would stop.

    Args:
        entropy: (..., number of stages) float32, in nats.
        threshold: In nats.

    Returns:
        (...) index of the first stage with an entropy below the threshold, else of the last.
    """
    stops = entropy < np.float32(threshold)  # as torch compares with a number
    stops[..., -1] = True
    return stops.argmax(axis=-1)


@dataclass
class Seen:
    """One image as a function of the threshold, which is constant between the ``breaks``.

    Attributes:
        breaks: (P - 1,) increasing float32; above each of them more windows stop early.
        exits: (P, W) exit stages between the breaks.
        scores: (P, ...) what the judge counted.
        gmacs: (P,) cost of the image in 10^9 MACs.
        stages: Scores (number of stages, ...) with all windows in one stage.
        look: Where it comes from.
    """

    breaks: np.ndarray
    exits: np.ndarray
    scores: np.ndarray
    gmacs: np.ndarray
    stages: np.ndarray
    look: Look

    @classmethod
    def judge(cls, look: Look, score: Score) -> "Seen":
        """Scores every choice that some threshold makes; each is scored once."""
        breaks = np.unique(look.entropy[:, :-1])
        exits = np.stack([choose_exits(look.entropy, t) for t in (*breaks, np.inf)])
        found = {}

        def once(chosen: np.ndarray) -> np.ndarray:
            key = tuple(chosen.tolist())
            if key not in found:
                found[key] = score(key)
            return found[key]

        scores = np.stack([once(chosen) for chosen in exits])
        windows, stages = look.entropy.shape
        single = np.stack([once(np.full(windows, stage)) for stage in range(stages)])
        return cls(breaks, exits, scores, look.gmacs[exits].sum(1), single, look)

    def at(self, threshold: float) -> int:
        """Which piece a threshold is in."""
        return int(np.searchsorted(self.breaks, np.float32(threshold), side="left"))


@dataclass
class Sweep:
    """Quality against cost, at any threshold.

    Attributes:
        images: All images, as functions of the threshold.
        judge: What tells quality from scores.
        difficulty_key: Entry of the metainfo with a difficulty in [0, 1], if there is one.
    """

    images: list[Seen]
    judge: type[Judge]
    difficulty_key: str | None = None

    @property
    def num_stages(self) -> int:
        """Number of thinking stages."""
        return len(self.images[0].stages)

    @cached_property
    def stage_ms(self) -> dict[tuple[int, int], np.ndarray]:
        """For each window size, median milliseconds (number of stages,) of a window."""
        times = {}
        for image in self.images:
            times.setdefault(image.look.shape, []).append(image.look.seconds)
        return {shape: 1e3 * np.median(found, axis=0) for shape, found in times.items()}

    @cached_property
    def costs(self) -> list[np.ndarray]:
        """Of each image (P, 2), GMACs and milliseconds."""
        times = [self.stage_ms[image.look.shape][image.exits].sum(1) for image in self.images]
        return [np.stack((i.gmacs, ms), axis=1) for i, ms in zip(self.images, times, strict=True)]

    def thresholds(self, count: int = 5) -> list[float]:
        """Thresholds from 0 to infinity; between them quantiles of the first stage's entropies."""
        first = np.concatenate([image.look.entropy[:, 0] for image in self.images])
        inner = np.unique(np.quantile(first, np.linspace(0, 1, count)[1:-1]))
        return [0.0, *inner[inner > 0].tolist(), float("inf")]

    def row(self, threshold: float) -> dict[str, float]:
        """What an evaluation at a threshold would give.

        Args:
            threshold: In nats.

        Returns:
            ``threshold``, the qualities in per cent, ``stage{i}.share`` (per cent of images or
            windows), ``gmacs`` (average of an image, 10^9), ``ms`` (average of an image, from the
            measured time of each stage and decode head), ``fps`` (images in a second) and, with a
            difficulty, ``thinks.{level}``.
        """
        at = [image.at(threshold) for image in self.images]
        exits = [image.exits[i] for image, i in zip(self.images, at, strict=True)]
        scores = np.stack([image.scores[i] for image, i in zip(self.images, at, strict=True)])
        costs = np.stack([cost[i] for cost, i in zip(self.costs, at, strict=True)])
        found = point(scores, costs, self.judge.quality)
        gmacs, ms = found.pop("gmacs"), found.pop("ms")
        every = np.concatenate(exits)
        shares = {
            f"stage{i}.share": 100 * float((every == i).mean()) for i in range(self.num_stages)
        }
        row = dict(threshold=threshold, **found, **shares, gmacs=gmacs, ms=ms, fps=1e3 / ms)
        if self.difficulty_key:
            known = [image.look.metainfo[self.difficulty_key] for image in self.images]
            row.update(thinks_by_difficulty(exits, known))
        return row

    @cached_property
    def gate(self) -> Curve:
        """The gate that was swept, cheapest first."""
        rows = [self.row(threshold) for threshold in self.thresholds(33)]
        return sorted(rows, key=lambda row: row["gmacs"])

    @cached_property
    def single(self) -> Curve:
        """Each stage for all images."""
        return single_stages(*self._stages, self.judge.quality)

    @cached_property
    def random(self) -> Curve:
        """A gate that draws lots."""
        return random_gate(*self._stages, self.judge.quality)

    @cached_property
    def oracle(self) -> Curve:
        """A gate that knows the best threshold, or stage, of each image."""
        choices = [
            (np.concatenate((image.scores, scores)), np.concatenate((costs, single)))
            for image, costs, scores, single in zip(
                self.images, self.costs, *self._stages, strict=True
            )
        ]
        return oracle_gate(choices, self.judge.quality, self.judge.correct)

    @property
    def gap(self) -> float:
        """Area between gate and oracle: points of quality, averaged over the costs they share."""
        return gap(self.gate, self.oracle, self.judge.headline)

    @cached_property
    def _stages(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores (images, stages, ...) and costs (images, stages, 2)."""
        costs = [
            len(image.look.entropy)
            * np.stack((image.look.gmacs, self.stage_ms[image.look.shape]), axis=1)
            for image in self.images
        ]
        return np.stack([image.stages for image in self.images]), np.stack(costs)


def sweep_keep_ratios(
    model: torch.nn.Module,
    loader: Iterable,
    keep_ratios: Sequence[float],
    difficulty_key: str | None = None,
) -> dict[float, Sweep] | None:
    """Evaluates at all thresholds, in one pass for each keep ratio of the token pruning.

    Args:
        model: Its gate has a threshold, its backbone prunes tokens.
        loader: Test data, on every process its part.
        keep_ratios: Each in (0, 1].
        difficulty_key: Entry of the metainfo with a difficulty in [0, 1], if there is one.

    Returns:
        The figures for each keep ratio, on the main process; None on others. The model's own keep
        ratio stays as it was.

    Raises:
        ValueError: If a ratio is out of range, the backbone does not prune, or as in :func:`sweep`.
    """
    pruning = model.backbone.pruning
    if pruning is None:
        kind = type(model.backbone).__name__
        raise ValueError(f"the model's {kind} prunes no tokens: it has no keep ratio to sweep")
    own, found = pruning.keep_ratio, {}
    try:
        for keep_ratio in sorted(check_keep_ratios(keep_ratios)):  # images too small end the first
            pruning.keep_ratio = keep_ratio
            found[keep_ratio] = sweep(model, loader, difficulty_key)
    finally:
        pruning.keep_ratio = own
    return {ratio: found[ratio] for ratio in keep_ratios} if is_main_process() else None


def check_thresholds(thresholds: Sequence[float]) -> list[float]:
    """Returns thresholds in nats.

    Raises:
        ValueError: If there is none, one is negative or NaN, or they do not increase.
    """
    checked = [check_threshold(threshold) for threshold in thresholds]
    if not checked or any(b <= a for a, b in pairwise(checked)):
        raise ValueError(f"thresholds {checked} must be increasing, at least one")
    return checked


def check_keep_ratios(keep_ratios: Sequence[float]) -> list[float]:
    """Returns keep ratios.

    Raises:
        ValueError: If there is none, one is outside (0, 1], or one is given twice.
    """
    ratios = list(keep_ratios)
    if not ratios or not all(0 < r <= 1 for r in ratios) or len(set(ratios)) < len(ratios):
        raise ValueError(f"keep ratios {ratios} must be different and lie in (0, 1], at least one")
    return ratios


@torch.no_grad()
def sweep(
    model: torch.nn.Module,
    loader: Iterable,
    difficulty_key: str | None = None,
) -> Sweep | None:
    """Evaluates a segmentor or classifier at all thresholds.

    Args:
        model: Its gate has a threshold.
        loader: Test data, on every process its part.
        difficulty_key: Entry of the metainfo with a difficulty in [0, 1], if there is one.

    Returns:
        The figures, on the main process; None on others.

    Raises:
        ValueError: If the model does not think, has no gate with a threshold, or there is no data.
    """
    judge = judge_for(model, len(loader.dataset.metainfo["classes"]))
    gate = model.backbone.gate
    if not hasattr(gate, "threshold"):
        raise ValueError(
            f"a gate with a threshold is needed to sweep, the model has a {type(gate).__name__}"
        )
    if not len(loader.dataset):
        raise ValueError("there is no image to sweep over")
    model.eval()
    seen = []
    for batch in tqdm(loader, desc="sweep", disable=not is_main_process()):
        batch = model.data_preprocessor(batch, False)
        seen += [Seen.judge(*look) for look in judge.look(**batch)]
    seen = collect_results(seen, len(loader.dataset), "cpu")
    return Sweep(seen, type(judge), difficulty_key) if is_main_process() else None
