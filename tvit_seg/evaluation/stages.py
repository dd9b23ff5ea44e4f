"""Judges look at all stages of an image at once, and score any choice among them afterwards."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..models.classifiers import ThinkingClassifier
from ..models.segmentors import ThinkingEncoderDecoder
from ..thinking import measure
from ..utils.timing import Stopwatch
from .mosaic import Mosaic


@dataclass
class Look:
    """What all stages say about one image, seen through W windows (a single one is the image).

    Attributes:
        metainfo: Of the image's data sample.
        shape: (h, w) of a window in pixels.
        entropy: (W, number of stages) float32, in nats.
        gmacs: (number of stages,) cost of a window that stops after each stage, in 10^9 MACs.
        seconds: (number of stages,) time of such a window: its share of the batch it ran in.
    """

    metainfo: dict
    shape: tuple[int, int]
    entropy: np.ndarray
    gmacs: np.ndarray
    seconds: np.ndarray


Score = Callable[[Sequence[int]], np.ndarray]
"""Maps the exit stages of an image's W windows to an array of counts that add up over images."""


class Judge(ABC):
    """What a sweep needs to know about a task.

    Args:
        model: Model whose backbone thinks.
        num_classes: Of the dataset.
        ignore_index: Label to leave out.
    """

    headline: str
    """The quality that counts first."""

    def __init__(self, model: nn.Module, num_classes: int, ignore_index: int = 255):
        self.model = model
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    @staticmethod
    @abstractmethod
    def quality(scores: np.ndarray) -> dict[str, float]:
        """Qualities (...) in per cent, of scores (..., counts) summed over images."""

    @staticmethod
    @abstractmethod
    def correct(scores: np.ndarray) -> np.ndarray:
        """How right images are, in [0, 1], of scores (images, stages, ...)."""

    @abstractmethod
    def look(self, inputs: Tensor, data_samples: list) -> Iterator[tuple[Look, Score]]:
        """Runs all stages of all windows.

        Args:
            inputs: (B, 3, H, W) after the data preprocessor.
            data_samples: With labels.

        Yields:
            A look at each image, and how to score it.
        """


class SegmentationJudge(Judge):
    """Counts pixels: scores (4, K) are intersection, union, prediction and label areas."""

    headline = "mIoU"

    @staticmethod
    def quality(scores: np.ndarray) -> dict[str, float]:
        """mIoU, aAcc and mAcc in per cent, of scores (..., 4, K) summed over images.

        Classes that neither occur nor are predicted do not count, as in ``IoUMetric``.
        """
        both, union, _, label = np.moveaxis(scores, -2, 0)  # (..., K) each
        with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mean of empty slice")  # no label at all: NaN
            return dict(
                mIoU=100 * np.nanmean(both / union, axis=-1),
                aAcc=100 * both.sum(-1) / label.sum(-1),
                mAcc=100 * np.nanmean(both / label, axis=-1),
            )

    @staticmethod
    def correct(scores: np.ndarray) -> np.ndarray:
        """Share of correct pixels: scores (..., 4, K) to (...)."""
        return scores[..., 0, :].sum(-1) / scores[..., 3, :].sum(-1).clip(min=1)

    def look(
        self, inputs: Tensor, data_samples: list[SegDataSample]
    ) -> Iterator[tuple[Look, Score]]:
        model, stages = self.model, range(self.model.num_stages)
        windows = model.windows(inputs)
        entropies, logits = ([[] for _ in stages] for _ in range(2))
        thinking, decoding = np.zeros((2, len(stages)))
        for _, crops in windows.crops(inputs, model.window_batch_size):
            decode = model.decoder(crops)
            watch = Stopwatch(inputs.device)
            for output in model.backbone.iter_stages(crops):
                output, entropy = measure(model.backbone.gate, output, crops, decode)
                entropies[output.stage].append(entropy.float())
                thinking[output.stage] += watch.lap()
                decoded = output.seg_logits
                if decoded is None:
                    decoded = decode(output.features)
                logits[output.stage] += decoded[..., : crops.shape[-2], : crops.shape[-1]]
                decoding[output.stage] += watch.lap()
        # a gate that looks at pixels has had each stage decoded in its own lap
        seconds = (thinking.cumsum() + decoding) / (len(inputs) * len(windows))
        shape = (len(inputs), len(windows))
        entropies = torch.stack([torch.cat(e).unflatten(0, shape) for e in entropies], dim=-1)
        entropies = entropies.cpu().numpy()  # (B, W, stages)
        for i, sample in enumerate(data_samples):
            mine = slice(i * len(windows), (i + 1) * len(windows))
            mosaic = Mosaic(model, [stage[mine] for stage in logits], windows, sample.metainfo)
            look = Look(
                metainfo=sample.metainfo,
                shape=windows.shape,
                entropy=entropies[i],
                gmacs=model.stage_gmacs(windows).numpy(),
                seconds=seconds,
            )
            yield look, partial(self._score, mosaic, sample.gt_sem_seg.data.squeeze(0))

    def _score(self, mosaic: Mosaic, labels: Tensor, exits: Sequence[int]) -> np.ndarray:
        prediction = mosaic.predict(exits)
        areas = IoUMetric.intersect_and_union(
            prediction, labels.to(prediction), self.num_classes, self.ignore_index
        )
        return torch.stack(areas).double().numpy()


class ClassificationJudge(Judge):
    """Counts images: scores are right at first, right among five if there are more classes, all."""

    headline = "top1"
    topk = (1, 5)

    @staticmethod
    def quality(scores: np.ndarray) -> dict[str, float]:
        """Accuracies in per cent, of scores (..., 3) or (..., 2) summed over images."""
        *hits, count = np.moveaxis(scores, -1, 0)
        names = [f"top{k}" for k in ClassificationJudge.topk[: len(hits)]]
        return {name: 100 * right / count for name, right in zip(names, hits, strict=True)}

    @staticmethod
    def correct(scores: np.ndarray) -> np.ndarray:
        """Whether the image is right: scores (..., 3) or (..., 2) to (...)."""
        return scores[..., 0]

    def look(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> Iterator[tuple[Look, Score]]:
        gate, size = self.model.backbone.gate, tuple(inputs.shape[-2:])
        labels = torch.stack([sample.gt_label for sample in data_samples]).to(inputs.device)
        topk = [k for k in self.topk if k == 1 or k < self.num_classes]  # all classes say nothing
        entropies, counts, seconds = [], [], []
        watch = Stopwatch(inputs.device)
        for output in self.model.backbone.iter_stages(inputs):
            output, entropy = measure(gate, output, inputs)
            entropies.append(entropy.float())
            seconds.append(watch.lap())
            best = output.logits.topk(max(topk)).indices == labels[:, None]
            hits = [best[:, :k].any(1) for k in topk]
            counts.append(torch.stack([*hits, torch.ones_like(hits[0])], dim=-1).double())
            watch.lap()
        entropies = torch.stack(entropies, dim=-1).cpu().numpy()  # (B, stages)
        counts = torch.stack(counts, dim=1).cpu().numpy()  # (B, stages, 3 or 2)
        for i, sample in enumerate(data_samples):
            look = Look(
                metainfo=sample.metainfo,
                shape=size,
                entropy=entropies[i : i + 1],
                gmacs=self.model.stage_gmacs(size).numpy(),
                seconds=np.cumsum(seconds) / len(inputs),
            )
            yield look, lambda exits, i=i: counts[i, exits[0]]


def judge_for(model: nn.Module, num_classes: int) -> Judge:
    """The judge for a model.

    Args:
        model: A thinking segmentor or classifier.
        num_classes: Of the dataset.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(model, ThinkingClassifier):
        return ClassificationJudge(model, num_classes)
    if isinstance(model, ThinkingEncoderDecoder):
        return SegmentationJudge(model, num_classes, model.decode_head.ignore_index)
    raise ValueError(
        f"{type(model).__name__} keeps no account of thinking: a sweep needs a "
        "ThinkingEncoderDecoder or a ThinkingClassifier"
    )
