"""Painted predictions during validation and tests."""

import os
from collections.abc import Sequence

import mmcv
from mmengine.runner import Runner
from mmseg.engine import SegVisualizationHook
from mmseg.structures import SegDataSample
from torch.utils.data import DataLoader

from ...datasets.corrupt import reader_of
from ...datasets.images import to_picture
from ...registry import register


@register("HOOKS")
class PictureHook(SegVisualizationHook):
    """mmseg's ``SegVisualizationHook`` that reads images with the loader of their pipeline.

    mmseg's own knows ordinary pictures only. :class:`ThinkingRunner` replaces it, whose arguments
    it takes, by this hook.
    """

    _test_index = 0

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[SegDataSample]
    ) -> None:
        """Paint the first image of every ``interval``-th batch."""
        step = runner.iter + batch_idx
        if self.draw and step % self.interval == 0:
            self._paint(runner.val_dataloader, "val", outputs[0], step)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[SegDataSample]
    ) -> None:
        """Paint all images."""
        for sample in outputs if self.draw else ():
            self._test_index += 1
            self._paint(runner.test_dataloader, "test", sample, self._test_index)

    def _paint(self, loader: DataLoader, split: str, sample: SegDataSample, step: int) -> None:
        image = mmcv.bgr2rgb(to_picture(reader_of(loader.dataset).image(sample.metainfo)))
        self._visualizer.add_datasample(
            f"{split}_{os.path.basename(sample.img_path)}",
            image,
            data_sample=sample,
            show=self.show,
            wait_time=self.wait_time,
            step=step,
        )
