"""Accuracy of each thinking stage and of the gate, where images stopped, and what they cost."""

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from prettytable import PrettyTable
from torch import Tensor

from ..registry import register


@register("METRICS")
class ThinkingAccuracy(BaseMetric):
    """Top-k accuracy of what the gate chose and of every stage, exit shares, average cost.

    It needs the results of a :class:`~tvit_seg.ThinkingClassifier`, for the accuracy of every stage
    on all images with ``test_cfg=dict(per_stage=True)``.

    Args:
        topk: Which accuracies to report.
        collect_device: As in mmengine, ``'cpu'`` or ``'gpu'``.
        prefix: As in mmengine.

    Raises:
        ValueError: If a ``topk`` is no integer >= 1.
    """

    default_prefix = "accuracy"

    def __init__(
        self,
        topk: Sequence[int] = (1, 5),
        collect_device: str = "cpu",
        prefix: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not topk or not all(isinstance(k, int) and k >= 1 for k in topk):
            raise ValueError(f"topk={topk} must be integers >= 1")
        self.topk = tuple(topk)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Takes the results of a batch.

        Args:
            data_batch: Not used.
            data_samples: Results with prediction, label and the account of thinking.

        Raises:
            KeyError: If the model kept no account of thinking.
            ValueError: If a ``topk`` is above the number of classes.
        """
        for sample in data_samples:
            if "exit_stage" not in sample:
                raise KeyError(
                    "ThinkingAccuracy found no exit_stage in the results: it needs a "
                    "ThinkingClassifier"
                )
            label, stages = sample["gt_label"], sample.get("stage_scores")
            self.results.append(
                dict(
                    exit=int(sample["exit_stage"]),
                    num_stages=len(sample["gate_entropy"]),
                    gmacs=sample["gmacs"],
                    hits=self._hits(sample["pred_score"], label),
                    stage_hits=None if stages is None else [self._hits(s, label) for s in stages],
                )
            )

    def _hits(self, scores: Tensor, label: Tensor) -> list[bool]:
        """Whether the label is among the k best, for each k."""
        if max(self.topk) > len(scores):
            raise ValueError(f"topk={self.topk} is above the number of classes, {len(scores)}")
        best = scores.topk(max(self.topk)).indices
        return [bool((best[:k] == label.to(best)).any()) for k in self.topk]

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Sums up.

        Args:
            results: One entry for each image, from all processes.

        Returns:
            In per cent ``top{k}`` with the gate; of each stage ``stage{i}.top{k}`` if all images
            ran it, ``stage{i}.share`` of images that stopped there and ``stage{i}.exit_top{k}`` of
            these (NaN where none did). ``gmacs`` is the average of an image, 10^9.
        """
        exits = np.array([r["exit"] for r in results])
        hits = np.array([r["hits"] for r in results])  # (images, number of k)
        metrics = self._accuracies("top{k}", hits)
        for stage in range(results[0]["num_stages"]):
            stopped = exits == stage
            metrics[f"stage{stage}.share"] = round(100 * float(stopped.mean()), 2)
            metrics.update(self._accuracies(f"stage{stage}.exit_top{{k}}", hits[stopped]))
            if results[0]["stage_hits"] is not None:
                of_stage = np.array([r["stage_hits"][stage] for r in results])
                metrics.update(self._accuracies(f"stage{stage}.top{{k}}", of_stage))
        metrics["gmacs"] = round(float(np.mean([r["gmacs"] for r in results])), 4)
        table = self._table(metrics, results[0]["num_stages"])
        print_log(f"\n{table}\naverage GMACs: {metrics['gmacs']}", MMLogger.get_current_instance())
        return metrics

    def _accuracies(self, name: str, hits: np.ndarray) -> dict[str, float]:
        means = hits.mean(axis=0) if len(hits) else [np.nan] * len(self.topk)
        return {
            name.format(k=k): round(100 * float(mean), 2)
            for k, mean in zip(self.topk, means, strict=True)
        }

    def _table(self, metrics: dict[str, float], num_stages: int) -> PrettyTable:
        names = [f"top{k}" for k in self.topk]
        head = ["exits (%)", *(f"{n} of these" for n in names), *(f"{n} of all" for n in names)]
        table = PrettyTable(["stage", *head])
        for stage in range(num_stages):
            keys = ["share", *(f"exit_{n}" for n in names), *names]
            table.add_row([stage, *(metrics.get(f"stage{stage}.{key}", "-") for key in keys)])
        table.add_row(["gate", 100, *(metrics[name] for name in names), *("-" for _ in names)])
        return table
