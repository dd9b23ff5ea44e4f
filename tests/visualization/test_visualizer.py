"""Overlays that show the exit stage of each image."""

import cv2
import numpy as np
import pytest
import torch
from helpers.builders import SLIDE, batch, segmentor
from mmseg.structures import SegDataSample

from tvit_seg import FixedGate, RandomGate
from tvit_seg.visualization import ThinkingVisualizer
from tvit_seg.visualization.window_map import draw_window_map, stage_colour

META = dict(classes=tuple("abcde"), palette=[[i, i, 9 * i] for i in range(5)])


@pytest.fixture
def visualizer():
    visualizer = ThinkingVisualizer()
    visualizer.dataset_meta = META
    return visualizer


@pytest.mark.parametrize("test_cfg", [dict(mode="whole"), SLIDE], ids=["whole", "slide"])
@torch.no_grad()
def test_overlay(tmp_path, visualizer, test_cfg):
    model = segmentor(RandomGate(0.5, seed=0), test_cfg=test_cfg)
    images, data_samples = batch(1, (50, 60))
    result = model.predict(images, data_samples)[0]
    image = np.zeros((50, 60, 3), np.uint8)
    visualizer.add_datasample("x", image, result, out_file=str(tmp_path / "x.png"))
    drawn = cv2.imread(str(tmp_path / "x.png"))
    # image, labels, prediction and for windows their map, six times as large, and a caption
    panels = 3 if test_cfg["mode"] == "whole" else 4
    assert drawn.shape == (300 + 28, panels * 360, 3)
    assert (drawn[-28:] == 0).any()


@pytest.mark.parametrize("test_cfg", [dict(mode="whole"), SLIDE], ids=["whole", "slide"])
@torch.no_grad()
def test_tokens_that_survived(visualizer, test_cfg):
    pruning = dict(type="DynamicPruning", locations=(0, 1), keep_ratio=0.7)
    model = segmentor(
        FixedGate(1), test_cfg=test_cfg, backbone=dict(img_size=64, patch_size=4, pruning=pruning)
    )
    images, data_samples = batch(1, (50, 60))
    result = model.predict(images, data_samples)[0]
    image = np.zeros((50, 60, 3), np.uint8)
    drawn = visualizer.paint(image, result)[:300]
    first, second = np.split(drawn[:, -720:], 2, axis=1)  # six times as large
    faded = [(panel > 0).any(-1).mean() for panel in (first, second)]
    assert 0.1 < faded[0] < faded[1] < 0.6


def test_without_exits(tmp_path, visualizer):
    _, data_samples = batch(1, (300, 40))
    image = np.zeros((300, 40, 3), np.uint8)
    visualizer.add_datasample("x", image, data_samples[0], out_file=str(tmp_path / "x.png"))
    assert cv2.imread(str(tmp_path / "x.png")).shape == (300, 80, 3)


def test_window_map():
    """Four windows that overlap by half; each cell has the colour of its stage."""
    boxes = [[y, x, y + 2 / 3, x + 2 / 3] for y in (0, 1 / 3) for x in (0, 1 / 3)]
    sample = SegDataSample(metainfo={})
    for name, value in dict(
        exit_stage=torch.tensor([0, 1, 2, 0]),
        windows=torch.tensor(boxes),
        gate_entropy=torch.rand(4, 3),
    ).items():
        sample.set_field(value, name)
    drawn = draw_window_map(np.zeros((120, 180, 3), np.uint8), sample)
    assert drawn.shape == (120, 180, 3)
    corners = [drawn[8, 8], drawn[8, -8], drawn[-8, 8], drawn[-8, -8]]
    for colour, stage in zip(corners, (0, 1, 2, 0), strict=True):
        expected = 0.55 * 100 + 0.45 * np.array(stage_colour(stage))
        np.testing.assert_allclose(colour, expected, atol=1)
    np.testing.assert_array_equal(drawn[1, 10], stage_colour(0))  # the frame
