"""Overlays that say which stage each image used."""

import cv2
import numpy as np
import pytest
import torch
from builders import SLIDE, batch, segmentor

from tvit_seg import RandomGate
from tvit_seg.evaluation import ThinkingVisualizer

META = dict(classes=tuple("abcde"), palette=[[i, i, 9 * i] for i in range(5)])


@pytest.mark.parametrize("test_cfg", [dict(mode="whole"), SLIDE], ids=["whole", "slide"])
@torch.no_grad()
def test_overlay(tmp_path, test_cfg):
    model = segmentor(RandomGate(0.5, seed=0), test_cfg=test_cfg)
    images, data_samples = batch(1, (50, 60))
    result = model.predict(images, data_samples)[0]
    visualizer = ThinkingVisualizer()
    visualizer.dataset_meta = META
    image = np.zeros((50, 60, 3), np.uint8)
    visualizer.add_datasample("x", image, result, out_file=str(tmp_path / "x.png"))
    drawn = cv2.imread(str(tmp_path / "x.png"))
    # image, labels and prediction six times as large, and a caption
    assert drawn.shape == (300 + 28, 3 * 360, 3)
    assert (drawn[-28:] == 0).any()


def test_without_an_account_of_thinking(tmp_path):
    _, data_samples = batch(1, (300, 40))
    visualizer = ThinkingVisualizer()
    visualizer.dataset_meta = META
    image = np.zeros((300, 40, 3), np.uint8)
    visualizer.add_datasample("x", image, data_samples[0], out_file=str(tmp_path / "x.png"))
    assert cv2.imread(str(tmp_path / "x.png")).shape == (300, 80, 3)
