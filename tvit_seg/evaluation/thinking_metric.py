"""Where images stopped, how well they did there, and what they cost."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric
from prettytable import PrettyTable
from torch import Tensor

from ..registry import register
from .stages import SegmentationJudge

LEVELS = ("easy", "medium", "hard")


@register("METRICS")
class ThinkingMetric(BaseMetric):
    """Exit share and mIoU of each thinking stage, and the average cost.

    It stands next to ``IoUMetric``, which measures all images together, and needs the results of a
    :class:`~tvit_seg.ThinkingEncoderDecoder`. In ``slide`` mode the unit is the window.

    Args:
        ignore_index: Label of pixels to leave out.
        difficulty_key: Entry of the metainfo with a difficulty in [0, 1]; if given, the share of
            units that thought beyond the first stage is reported for the easy, medium and hard
            third of that range.
        collect_device: As in mmengine, ``'cpu'`` or ``'gpu'``.
        prefix: As in mmengine.
    """

    default_prefix = "thinking"

    def __init__(
        self,
        ignore_index: int = 255,
        difficulty_key: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index
        self.difficulty_key = difficulty_key

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Takes the results of a batch.

        Args:
            data_batch: Not used.
            data_samples: Results with prediction, label map and the account of thinking.

        Raises:
            KeyError: If the model kept no account of thinking.
        """
        for sample in data_samples:
            if "exit_stage" not in sample:
                raise KeyError(
                    "ThinkingMetric found no exit_stage in the results: it needs a "
                    "ThinkingEncoderDecoder, the plain EncoderDecoder keeps no account of exits"
                )
            self.results.append(
                dict(
                    exits=sample["exit_stage"].reshape(-1).numpy(),
                    num_stages=sample["gate_entropy"].shape[-1],
                    areas=self._areas(sample),
                    gmacs=sample["gmacs"],
                    difficulty=sample[self.difficulty_key] if self.difficulty_key else None,
                )
            )

    def _areas(self, sample: dict) -> np.ndarray:
        """(number of stages, 4, K): intersection, union, prediction, label areas by exit stage."""
        prediction = sample["pred_sem_seg"]["data"].squeeze(0).cpu()
        labels = sample["gt_sem_seg"]["data"].squeeze(0).cpu().to(prediction)
        num_classes = len(self.dataset_meta["classes"])
        areas = torch.zeros(sample["gate_entropy"].shape[-1], 4, num_classes)
        exits = sample["exit_stage"].reshape(-1)
        for stage, window in zip(exits, sample["windows"], strict=True):
            pixels = _pixels(window, prediction.shape)
            areas[stage] += torch.stack(
                IoUMetric.intersect_and_union(
                    prediction[pixels], labels[pixels], num_classes, self.ignore_index
                )
            )
        return areas.double().numpy()

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Sums up.

        Args:
            results: One entry for each image, from all processes.

        Returns:
            ``stage{i}.share`` (per cent of images or windows), ``stage{i}.mIoU`` (per cent, NaN
            where none stopped), ``gmacs`` (average of an image, 10^9), and ``thinks.{level}`` (per
            cent that thought beyond the first stage) where a difficulty is known.
        """
        exits = np.concatenate([r["exits"] for r in results])
        areas = np.sum([r["areas"] for r in results], axis=0)
        num_stages = results[0]["num_stages"]
        metrics = {}
        table = PrettyTable(["stage", "exits", "share (%)", "mIoU of these (%)"])
        for stage in range(num_stages):
            count = int((exits == stage).sum())
            share = 100 * count / len(exits)
            miou = SegmentationJudge.quality(areas[stage])["mIoU"] if count else float("nan")
            metrics[f"stage{stage}.share"] = round(share, 2)
            metrics[f"stage{stage}.mIoU"] = round(miou, 2)
            table.add_row([stage, count, f"{share:.1f}", f"{miou:.2f}"])
        metrics["gmacs"] = round(float(np.mean([r["gmacs"] for r in results])), 4)
        if self.difficulty_key:
            exits, difficulties = ([r[key] for r in results] for key in ("exits", "difficulty"))
            metrics.update(thinks_by_difficulty(exits, difficulties))
        logger = MMLogger.get_current_instance()
        print_log(f"\n{table}\naverage GMACs: {metrics['gmacs']}", logger)
        return metrics


def thinks_by_difficulty(
    exits: Sequence[np.ndarray], difficulties: Sequence[float]
) -> dict[str, float]:
    """Share of images or windows that thought beyond the first stage, by difficulty.

    Args:
        exits: Exit stages of each image's windows.
        difficulties: Of each image, in [0, 1].

    Returns:
        ``thinks.{level}`` in per cent for the easy, medium and hard third of the range.
    """
    thirds = np.array([min(int(3 * difficulty), 2) for difficulty in difficulties])
    found = {}
    for index, level in enumerate(LEVELS):
        chosen = [e for e, third in zip(exits, thirds, strict=True) if third == index]
        thinks = np.concatenate(chosen) > 0 if chosen else np.array([np.nan])
        found[f"thinks.{level}"] = round(100 * float(thinks.mean()), 2)
    return found


def _pixels(window: Tensor, shape: Sequence[int]) -> tuple[slice, slice]:
    """A window, given as shares of the image, in pixels of the label map."""
    height, width = shape
    top, left, bottom, right = (window * torch.tensor([height, width] * 2)).round().int().tolist()
    return slice(top, bottom), slice(left, right)
