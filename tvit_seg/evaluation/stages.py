"""Predictions of all stages for an image, and scores for any choice of exit stages."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..errors import ConfigError
from ..models.classifiers import ThinkingClassifier
from ..models.segmentors import ThinkingEncoderDecoder
from ..models.segmentors.class_map import class_map
from ..models.segmentors.postprocess import has_original_size, label_map
from ..models.segmentors.windows import Windows
from ..thinking import measure
from ..utils.timing import Stopwatch
from .metrics import pixel_counts, segmentation_quality, topk_hits

Score = Callable[[Sequence[int]], np.ndarray]
"""Maps the exit stages of an image's W windows to an array of counts that add up over images."""


@dataclass
class StagePredictions:
    """Measurements of every stage on the W windows of an image (a single one in ``whole`` mode).

    Attributes:
        metainfo: Of the image's data sample.
        shape: (h, w) of a window in pixels.
        entropy: (W, number of stages) float32, in nats.
        gmacs: (number of stages,) cost of a window that exits after each stage, in 10^9 MACs.
        seconds: (number of stages,) time of such a window: its share of the batch it ran in.
    """

    metainfo: dict
    shape: tuple[int, int]
    entropy: np.ndarray
    gmacs: np.ndarray
    seconds: np.ndarray


class StageEvaluator(ABC):
    """Stages and scores of a task, for a sweep."""

    headline: str  # the quality that counts first

    def __init__(self, model: nn.Module, num_classes: int):
        self.model = model
        self.num_classes = num_classes

    @staticmethod
    @abstractmethod
    def quality(scores: np.ndarray) -> dict[str, np.ndarray]:
        """Compute qualities (...) in per cent from scores (..., counts) summed over images."""

    @staticmethod
    @abstractmethod
    def correct(scores: np.ndarray) -> np.ndarray:
        """Compute the correct share of images, in [0, 1], from scores (images, stages, ...)."""

    @abstractmethod
    def predict_stages(
        self, inputs: Tensor, data_samples: list
    ) -> Iterator[tuple[StagePredictions, Score]]:
        """Run all stages on all windows of a preprocessed batch (B, 3, H, W), once.

        For each image, yield the predictions and a function that scores any choice among them.
        """


class WindowComposer:
    """Composer of label maps from windows, each from a chosen stage.

    They are bit-equal to the segmentor's own. Between choices, only the windows that
    change are added up again. ``logits`` are, for each stage, (K, h, w) for each of the W windows.
    """

    def __init__(
        self,
        model: ThinkingEncoderDecoder,
        logits: list[list[Tensor]],
        windows: Windows,
        metainfo: Mapping,
    ):
        self.model = model
        self.logits = logits
        self.windows = windows
        self.metainfo = metainfo
        self._threshold = model.decode_head.threshold
        self._boxes = windows.boxes.tolist()
        self._exits: Sequence[int] = ()
        self._keeps_size = has_original_size(windows.size, metainfo)
        if len(windows) > 1:
            first = logits[0][0]
            self._cover = windows.cover(first)
            self._canvas = first.new_zeros(len(first), *windows.size)
            labels = first.dtype if len(first) == 1 else torch.long
            self._labels = first.new_empty(windows.size, dtype=labels)

    def compose(self, exits: Sequence[int]) -> Tensor:
        """Compose the label map for the exit stages of all windows.

        Returns:
            (H, W) at the size of the original image; the next call may change it in place.
        """
        if len(self.windows) == 1:
            return self._label_map(self.logits[exits[0]][0])
        if not self._exits:
            changed = [(0, 0, *self.windows.size)]
        else:
            stages = zip(self._boxes, self._exits, exits, strict=True)
            changed = [box for box, old, new in stages if old != new]
        self._exits = list(exits)
        for box in changed:
            self._update(*box)
        if not self._keeps_size:
            self._labels = self._label_map(self._canvas)
        return self._labels

    def _update(self, top: int, left: int, bottom: int, right: int) -> None:
        """Average the windows over an area, in the segmentor's order."""
        area = (..., slice(top, bottom), slice(left, right))
        canvas = self._canvas[area].zero_()
        for window, (y, x, y_end, x_end) in enumerate(self._boxes):
            up, down = max(top, y), min(bottom, y_end)
            start, stop = max(left, x), min(right, x_end)
            if up < down and start < stop:
                logits = self.logits[self._exits[window]][window]
                overlap = logits[..., up - y : down - y, start - x : stop - x]
                canvas[..., up - top : down - top, start - left : stop - left] += overlap
        canvas.div_(self._cover[area])
        if self._keeps_size:  # classes change nowhere else
            self._labels[area] = class_map(canvas, threshold=self._threshold)[0]

    def _label_map(self, logits: Tensor) -> Tensor:
        return label_map(logits, self.metainfo, self._threshold, self.model.align_corners)[0]


@dataclass
class LabelMaps:
    """Label maps of an image for any exit stages, scored by a call.

    Attributes:
        composer: Source of the label maps, at the size of the original image.
        labels: (H, W) of the same size; None for an image without.
        num_classes: K.
        ignore_index: Label that does not count.
        image_logits: (W, classes) image-level predictions of stage 0, if there are any.
    """

    composer: WindowComposer
    labels: Tensor | None
    num_classes: int
    ignore_index: int
    image_logits: Tensor | None

    def __call__(self, exits: Sequence[int]) -> np.ndarray:
        if self.labels is None:  # counts for nothing
            return np.zeros((4, self.num_classes))
        found = self.composer.compose(exits)
        return pixel_counts(found, self.labels, self.num_classes, self.ignore_index)


class SegmentationEvaluator(StageEvaluator):
    """Counts pixels: scores (4, K) are intersection, union, prediction and label areas."""

    headline = "mIoU"

    @staticmethod
    def quality(counts: np.ndarray) -> dict[str, Any]:
        return segmentation_quality(counts)

    @staticmethod
    def correct(scores: np.ndarray) -> np.ndarray:
        return scores[..., 0, :].sum(-1) / scores[..., 3, :].sum(-1).clip(min=1)

    def predict_stages(
        self, inputs: Tensor, data_samples: list[SegDataSample]
    ) -> Iterator[tuple[StagePredictions, Score]]:
        model, stages = self.model, range(self.model.num_stages)
        windows = model.windows(inputs)
        entropies: Any = [[] for _ in stages]
        logits: list[list[Tensor]] = [[] for _ in stages]
        image_logits: list[Tensor] = []
        thinking, decoding = np.zeros((2, len(stages)))
        for crops in windows.crops(inputs, model.window_batch_size):
            decode = model.decoder(crops)
            watch = Stopwatch(inputs.device)
            for output in model.backbone.iter_stages(crops, decode=decode):
                output, entropy = measure(model.backbone.gate, output, crops, decode)
                entropies[output.stage].append(entropy.float())
                thinking[output.stage] += watch.lap()
                if output.stage == 0 and output.logits is not None:
                    image_logits.append(output.logits)
                decoded = decode.seg_logits(output)
                logits[output.stage] += decoded[..., : crops.shape[-2], : crops.shape[-1]]
                decoding[output.stage] += watch.lap()
        # with a gate that reads pixels, each stage's lap includes its decoding
        seconds = (thinking.cumsum() + decoding) / (len(inputs) * len(windows))
        entropies = torch.stack([torch.cat(parts) for parts in entropies], dim=-1)
        entropies = entropies.unflatten(0, (len(inputs), len(windows))).cpu().numpy()
        for i, sample in enumerate(data_samples):
            own = slice(i * len(windows), (i + 1) * len(windows))
            own_logits = [stage[own] for stage in logits]
            composer = WindowComposer(model, own_logits, windows, sample.metainfo)
            predictions = StagePredictions(
                metainfo=sample.metainfo,
                shape=windows.shape,
                entropy=entropies[i],
                gmacs=model.stage_gmacs(windows).numpy(),
                seconds=seconds,
            )
            score = LabelMaps(
                composer=composer,
                labels=sample.gt_sem_seg.data.squeeze(0) if "gt_sem_seg" in sample else None,
                num_classes=self.num_classes,
                ignore_index=model.decode_head.ignore_index,
                image_logits=torch.cat(image_logits)[own] if image_logits else None,
            )
            yield predictions, score


class ClassificationEvaluator(StageEvaluator):
    """Counts images: scores are top-1 hits, top-5 hits with more than five classes, and images."""

    headline = "top1"
    topk = (1, 5)

    @staticmethod
    def quality(scores: np.ndarray) -> dict[str, np.ndarray]:
        *hits, count = np.moveaxis(scores, -1, 0)
        names = [f"top{k}" for k in ClassificationEvaluator.topk[: len(hits)]]
        return {name: 100 * right / count for name, right in zip(names, hits, strict=True)}

    @staticmethod
    def correct(scores: np.ndarray) -> np.ndarray:
        return scores[..., 0]

    def predict_stages(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> Iterator[tuple[StagePredictions, Score]]:
        gate, size = self.model.backbone.gate, tuple(inputs.shape[-2:])
        labels = torch.stack([sample.gt_label for sample in data_samples]).to(inputs.device)
        topk = [k for k in self.topk if k == 1 or k < self.num_classes]  # of all, each is right
        entropies, counts, seconds = [], [], []
        watch = Stopwatch(inputs.device)
        for output in self.model.backbone.iter_stages(inputs):
            output, entropy = measure(gate, output, inputs)
            entropies.append(entropy.float())
            seconds.append(watch.lap())
            hits = topk_hits(output.logits, labels, topk)
            counts.append(torch.cat((hits, torch.ones_like(hits[:, :1])), dim=1).double())
            watch.lap()
        entropies = torch.stack(entropies, dim=-1).cpu().numpy()  # (B, stages)
        counts = torch.stack(counts, dim=1).cpu().numpy()  # (B, stages, 3 or 2)
        for i, sample in enumerate(data_samples):
            predictions = StagePredictions(
                metainfo=sample.metainfo,
                shape=size,
                entropy=entropies[i : i + 1],
                gmacs=self.model.stage_gmacs(size).numpy(),
                seconds=np.cumsum(seconds) / len(inputs),
            )
            yield predictions, partial(_counts_of_image, counts[i])


def _counts_of_image(counts: np.ndarray, exits: Sequence[int]) -> np.ndarray:
    """Row of the stage where an image, its own single window, exits; counts (stages, ...)."""
    return counts[exits[0]]


def build_stage_evaluator(model: nn.Module, num_classes: int) -> StageEvaluator:
    """Build the evaluator for a thinking segmentor or classifier; other models are rejected."""
    if isinstance(model, ThinkingClassifier):
        return ClassificationEvaluator(model, num_classes)
    if isinstance(model, ThinkingEncoderDecoder):
        return SegmentationEvaluator(model, num_classes)
    raise ConfigError(
        f"{type(model).__name__} records no exits: a sweep needs a ThinkingEncoderDecoder or a "
        "ThinkingClassifier"
    )
