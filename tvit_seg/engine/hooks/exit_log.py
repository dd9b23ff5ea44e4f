"""One line about the exits of an evaluation, whatever the segmentor."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from ...evaluation import ThinkingAccuracy, ThinkingMetric
from ...evaluation.exits import take_exits
from ...registry import register
from ...thinking import RUNS


@register("HOOKS")
class ExitLogHook(Hook):
    """Log exits and average cost of each evaluation that has no metric for them.

    Every run of ``tools/train.py`` and ``tools/test.py`` has this hook; with mmseg's own tools add
    ``custom_hooks=[dict(type='tvit_seg.ExitLogHook')]``.
    """

    def before_val_epoch(self, runner: Runner) -> None:
        self._start()

    def before_test_epoch(self, runner: Runner) -> None:
        self._start()

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._collect(runner.val_evaluator, outputs)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._collect(runner.test_evaluator, outputs)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._report(runner)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._report(runner)

    def _start(self) -> None:
        RUNS.clear()
        self._exits: list[int] = []
        self._gmacs: list[float] = []
        self._what = ""

    def _collect(self, evaluator: Any, outputs: Sequence) -> None:
        metrics = getattr(evaluator, "metrics", ())
        if any(isinstance(metric, ThinkingMetric | ThinkingAccuracy) for metric in metrics):
            return
        if not all(isinstance(sample, BaseDataElement) for sample in outputs):
            return  # of a model of another kind
        if all("exit_stage" in sample for sample in outputs):
            found = [dict(exit_stage=x.exit_stage, gmacs=x.gmacs) for x in outputs]
        else:
            found = take_exits(len(outputs))
            self._what = " of the backbone"
        for result in found:
            self._exits += result["exit_stage"].reshape(-1).tolist()
            self._gmacs.append(result["gmacs"])

    def _report(self, runner: Runner) -> None:
        if not self._exits:
            return
        shares = 100 * np.bincount(self._exits) / len(self._exits)
        stages = ", ".join(f"{share:.1f} % after stage {i}" for i, share in enumerate(shares))
        runner.logger.info(
            f"exits of {len(self._exits)} images or windows: {stages}; "
            f"{np.mean(self._gmacs):.4g} GMACs{self._what} per image"
        )
