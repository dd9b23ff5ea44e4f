"""Judges look at all stages of an image at once, and score any choice among them afterwards."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from torch import Tensor

from ..segmentors import ThinkingEncoderDecoder
from ..timing import Stopwatch
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
        score: Maps the exit stages of the W windows to an array of counts that add up over images.
    """

    metainfo: dict
    shape: tuple[int, int]
    entropy: np.ndarray
    gmacs: np.ndarray
    seconds: np.ndarray
    score: Callable[[Sequence[int]], np.ndarray]


class SegmentationJudge:
    """Counts pixels: scores are (4, K) intersection, union, prediction, label area of each class.

    Args:
        model: The segmentor.
        num_classes: K of the dataset.
        ignore_index: Label of pixels to leave out.
    """

    headline = "mIoU"

    def __init__(self, model: ThinkingEncoderDecoder, num_classes: int, ignore_index: int = 255):
        self.model = model
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    @staticmethod
    def quality(scores: np.ndarray) -> dict[str, float]:
        """mIoU, aAcc and mAcc in per cent, of scores (4, K) summed over images."""
        found = IoUMetric.total_area_to_metrics(*torch.from_numpy(scores))
        return dict(
            mIoU=100 * float(np.nanmean(found["IoU"])),
            aAcc=100 * float(found["aAcc"]),
            mAcc=100 * float(np.nanmean(found["Acc"])),
        )

    @staticmethod
    def correct(scores: np.ndarray) -> np.ndarray:
        """Share of correct pixels: scores (..., 4, K) to (...)."""
        return scores[..., 0, :].sum(-1) / scores[..., 3, :].sum(-1).clip(min=1)

    def look(self, inputs: Tensor, data_samples: list[SegDataSample]) -> Iterator[Look]:
        """Runs all stages of all windows.

        Args:
            inputs: (B, 3, H, W) after the data preprocessor.
            data_samples: With label maps.

        Yields:
            A look at each image.
        """
        model, stages = self.model, range(self.model.num_stages)
        windows = model.windows(inputs)
        entropies, logits = ([[] for _ in stages] for _ in range(2))
        thinking, decoding = np.zeros((2, len(stages)))
        for _, crops in windows.crops(inputs, model.window_batch_size):
            decode = model.decoder(crops)
            watch = Stopwatch(inputs.device)
            for output in model.backbone.iter_stages(crops):
                output.images, output.decode = crops, decode
                entropies[output.stage].append(model.backbone.gate.entropy(output).float())
                thinking[output.stage] += watch.lap()
                logits[output.stage] += output.seg_logits[..., : crops.shape[-2], : crops.shape[-1]]
                decoding[output.stage] += watch.lap()
        # a gate that looks at pixels has had each stage decoded in its own lap
        seconds = (thinking.cumsum() + decoding) / (len(inputs) * len(windows))
        shape = (len(inputs), len(windows))
        entropies = torch.stack([torch.cat(e).unflatten(0, shape) for e in entropies], dim=-1)
        entropies = entropies.cpu().numpy()  # (B, W, stages)
        for i, sample in enumerate(data_samples):
            mine = slice(i * len(windows), (i + 1) * len(windows))
            mosaic = Mosaic(model, [stage[mine] for stage in logits], windows, sample.metainfo)
            yield Look(
                metainfo=sample.metainfo,
                shape=windows.shape,
                entropy=entropies[i],
                gmacs=model.stage_gmacs(windows).numpy(),
                seconds=seconds,
                score=partial(self._score, mosaic, sample.gt_sem_seg.data.squeeze(0)),
            )

    def _score(self, mosaic: Mosaic, labels: Tensor, exits: Sequence[int]) -> np.ndarray:
        prediction = mosaic.predict(exits)
        areas = IoUMetric.intersect_and_union(
            prediction, labels.to(prediction), self.num_classes, self.ignore_index
        )
        return torch.stack(areas).double().numpy()
