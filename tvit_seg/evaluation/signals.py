"""Signals that may tell how much a segmentation gains from thinking on, from one pass."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..models.segmentors import ThinkingEncoderDecoder
from ..models.segmentors.postprocess import label_map
from ..thinking import measure
from ..utils.checks import check
from ..utils.timing import Stopwatch
from .metrics import segmentation_quality
from .statistics import Calibration, Ranking


def margin(probabilities: Tensor) -> Tensor:
    """One minus the gap between the two likeliest of K classes: (n, K, ...) to (n, ...)."""
    first, second = probabilities.topk(2, dim=1).values.unbind(1)
    return 1 - (first - second)


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats over K classes: (n, K, ...) to (n, ...)."""
    return -torch.xlogy(probabilities, probabilities).sum(1)


MAPS: dict[str, Callable[[Tensor], Tensor]] = dict(entropy=entropy, margin=margin)
"""Signals with a value for each token, from the head's probabilities (n, K, h, w)."""


@dataclass
class ImageSignals:
    """Signals and true outcome of one image, earliest stage against last.

    Attributes:
        name: File name.
        values: One number per image-level signal.
        maps: One (h, w) per token-level signal.
        features: (F,) for a learned gain.
        counts: (2, h, w, 4, K) pixels of each token: intersection, union, prediction, label.
        gmacs: That the last stage adds to the first.
    """

    name: str
    values: dict[str, float]
    maps: dict[str, np.ndarray]
    features: np.ndarray
    counts: np.ndarray
    gmacs: float


@dataclass
class SignalRecords:
    """Result of a pass: images, seconds per image of each signal, calibration of the pixels."""

    images: list[ImageSignals] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)

    def ranking(self, level: str, signal: str, values: np.ndarray | None = None) -> Ranking:
        """Ranking of the units of a level by a signal.

        Args:
            level: ``image``, ``window`` (a quarter of the image) or ``token``.
            signal: Name of an image-level signal, or below that of a map.
            values: (images,) in place of a recorded image-level signal.
        """
        side = dict(image=1, window=2).get(level)
        if values is None and level == "image":
            values = np.array([image.values[signal] for image in self.images])
        signals, counts, owner, costs = [], [], [], []
        for i, image in enumerate(self.images):
            h, w = image.counts.shape[1:3]
            cell = np.arange(h * w) if side is None else _cells((h, w), (side, side)).ravel()
            units = np.bincount(cell)
            summed = np.zeros((2, len(units), *image.counts.shape[3:]))
            for stage in range(2):
                np.add.at(summed[stage], cell, image.counts[stage].reshape(h * w, 4, -1))
            counts.append(summed)
            if level == "image":
                signals.append(values[i : i + 1])
            else:
                signals.append(np.bincount(cell, image.maps[signal].ravel()) / units)
            owner.append(np.full(len(units), i))
            costs.append(image.gmacs * units / (h * w))
        before, after = np.concatenate(counts, axis=1)
        return Ranking(
            np.concatenate(signals),
            np.concatenate(owner),
            before,
            after,
            np.concatenate(costs),
            segmentation_quality,
        )


@torch.no_grad()
def record_signals(model: ThinkingEncoderDecoder, loader: DataLoader) -> SignalRecords:
    """Run the first and the last stage on whole images and measure every signal.

    Signals are ``gate`` (of the model's own gate), ``entropy`` and ``margin`` (means over tokens),
    ``mean_softmax`` (entropy of the mean prediction) and ``changed`` (share of the pixels that the
    last stage labels otherwise: a ceiling for signals that know no labels).
    """
    mode = model.test_cfg.get("mode", "whole")
    check(mode == "whole", "test_cfg mode", mode, "'whole' to compare signals")
    dataset: Any = loader.dataset
    num_classes = len(dataset.metainfo["classes"])
    model.eval()
    records = SignalRecords(seconds=dict.fromkeys(("gate", *MAPS, "mean_softmax"), 0.0))
    for batch in tqdm(loader, desc="signals"):
        data = model.data_preprocessor(batch, False)
        for i, sample in enumerate(data["data_samples"]):
            image = data["inputs"][i : i + 1]
            records.images.append(_record(model, image, sample, num_classes, records))
    for name in records.seconds:
        records.seconds[name] /= len(records.images)
    return records


def _record(
    model: ThinkingEncoderDecoder, image: Tensor, sample: Any, num_classes: int, to: SignalRecords
) -> ImageSignals:
    decode = model.decoder(image)
    size = image.shape[-2:]
    truth = sample.gt_sem_seg.data.squeeze(0).cpu().numpy()
    values: dict[str, float] = {}
    maps: dict[str, np.ndarray] = {}
    features = np.zeros(0)
    counts, labels = [], []
    for output in _ends(model.backbone.iter_stages(image)):
        coarse = decode.coarse(output.features)
        logits = decode.upsample(coarse)[..., : size[0], : size[1]]
        found = label_map(
            logits[0], sample.metainfo, model.decode_head.threshold, model.align_corners
        )
        labels.append(found.squeeze(0).cpu().numpy())
        if output.stage == 0:
            watch = Stopwatch(image.device)
            values["gate"] = measure(model.backbone.gate, output, image, decode)[1].item()
            to.seconds["gate"] += watch.lap()
            probabilities = coarse.softmax(1)
            softmax = watch.lap()
            for name, signal in MAPS.items():
                found = signal(probabilities)
                values[name] = found.mean().item()
                to.seconds[name] += softmax + watch.lap()
                maps[name] = found[0].cpu().numpy()
            mean = probabilities.mean((2, 3))
            values["mean_softmax"] = entropy(mean).item()
            to.seconds["mean_softmax"] += softmax + watch.lap()
            grid = coarse.shape[-2:]
            tokens = output.tokens[0].flatten(0, -2)
            moments = [[m.mean(), m.std(), m.max()] for m in maps.values()]
            features = np.concatenate(
                (tokens[0].cpu(), tokens.mean(0).cpu(), mean[0].cpu(), *moments)
            )
            confidence = logits[0].softmax(0).max(0).values.cpu().numpy()
        counts.append(_count(labels[-1], truth, grid, num_classes, model.decode_head.ignore_index))
    valid = truth != model.decode_head.ignore_index
    values["changed"] = float((labels[0] != labels[-1])[valid].mean()) if valid.any() else 0.0
    if confidence.shape == truth.shape:
        to.calibration.add(confidence[valid], (labels[0] == truth)[valid])
    costs = model.stage_gmacs(model.windows(image))
    return ImageSignals(
        name=sample.metainfo.get("img_path", ""),
        values=values,
        maps=maps,
        features=features,
        counts=np.stack(counts),
        gmacs=float(costs[-1] - costs[0]),
    )


def _ends(outputs: Iterable) -> Iterable:
    """First and last stage."""
    for output in outputs:
        if output.stage in (0, output.num_stages - 1):
            yield output


def _cells(size: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    """Index (H, W) of the cell of a grid that each pixel lies in."""
    rows, columns = (np.arange(n) * cells // n for n, cells in zip(size, grid, strict=True))
    return rows[:, None] * grid[1] + columns


def _count(
    labels: np.ndarray, truth: np.ndarray, grid: tuple[int, int], classes: int, ignore: int
) -> np.ndarray:
    """Pixels (h, w, 4, K) in each cell of a grid: intersection, union, prediction, label."""
    valid = truth != ignore
    cell = _cells(truth.shape, grid)[valid].astype(np.int64) * classes
    labels, truth = labels[valid].astype(np.int64), truth[valid].astype(np.int64)
    length = grid[0] * grid[1] * classes
    both = np.bincount((cell + truth)[labels == truth], minlength=length)
    predicted, labelled = (np.bincount(cell + x, minlength=length) for x in (labels, truth))
    areas = np.stack((both, predicted + labelled - both, predicted, labelled))
    return areas.reshape(4, *grid, classes).transpose(1, 2, 0, 3)


def learned_gain(train: SignalRecords, test: SignalRecords) -> np.ndarray:
    """Gain of each test image as a ridge regression on the training images predicts it.

    The strength of the ridge is the one with the least error in leave-one-out cross-validation.
    """
    x = np.stack([image.features for image in train.images]).astype(float)
    y = train.ranking("image", "gate").gain
    mean, scale = x.mean(0), x.std(0).clip(min=1e-6)
    u, s, vt = np.linalg.svd((x - mean) / scale, full_matrices=False)
    centred = y - y.mean()

    def shrink(strength: float) -> np.ndarray:
        return s / (s**2 + strength)

    def error(strength: float) -> float:
        fitted = u * (s * shrink(strength)) @ u.T
        left_out = (centred - fitted @ centred) / (1 - fitted.diagonal() - 1 / len(y))
        return float((left_out**2).mean())

    best = min(np.logspace(-1, 6, 15), key=error)
    weights = vt.T @ (shrink(best) * (u.T @ centred))
    other = np.stack([image.features for image in test.images]).astype(float)
    return (other - mean) / scale @ weights + y.mean()
