"""Overlays that show the exit stage of each image."""

import cv2
import numpy as np
import pytest
import torch
from helpers.builders import SLIDE, batch, segmentor
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from tvit_seg import EntropyGate, FixedGate, RandomGate
from tvit_seg.visualization import ThinkingVisualizer
from tvit_seg.visualization.legend import draw_legend
from tvit_seg.visualization.visualizer import _describe
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
    # image, labels, prediction and for windows their map, six times as large, legend and caption
    panels = 3 if test_cfg["mode"] == "whole" else 4
    assert drawn.shape == (300 + 22 + 28, panels * 360, 3)
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


def test_arrays_in_place_of_tensors(visualizer):
    """mmseg's browse_dataset.py has them."""
    _, (sample,) = batch(1)
    image = np.zeros((32, 32, 3), np.uint8)
    assert np.array_equal(visualizer.paint(image, sample.numpy()), visualizer.paint(image, sample))


def test_without_exits(tmp_path, visualizer):
    _, data_samples = batch(1, (300, 40))
    image = np.zeros((300, 40, 3), np.uint8)
    visualizer.add_datasample("x", image, data_samples[0], out_file=str(tmp_path / "x.png"))
    assert cv2.imread(str(tmp_path / "x.png")).shape == (300 + 3 * 22, 80, 3)


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


COLOURS = dict(classes=("a", "b", "c"), palette=[[200, 0, 0], [0, 200, 0], [0, 0, 200]])


def result(prediction, label=None):
    """A sample of label maps (H, W)."""
    maps = dict(pred_sem_seg=prediction, gt_sem_seg=label)
    return SegDataSample(
        **{k: PixelData(data=torch.tensor(v)[None]) for k, v in maps.items() if v is not None}
    )


def test_maps_are_opaque_and_errors_outlined():
    visualizer = ThinkingVisualizer(min_height=80)
    visualizer.dataset_meta = COLOURS
    label = np.zeros((40, 50), int)
    label[:, 25:] = 2
    label[:3] = 255
    prediction = label.copy()
    prediction[:3] = 1  # where the label is ignored
    image = np.full((40, 50, 3), 128, np.uint8)
    right = visualizer.paint(image, result(prediction, label))
    assert right[40, 110].tolist() == [200, 0, 0] and right[40, 190].tolist() == [0, 0, 200]
    assert not (right[:80] == 255).all(-1).any()
    prediction[20:30, 5:15] = 1
    outlined = (visualizer.paint(image, result(prediction, label))[:80] == 255).all(-1)
    rows, columns = np.nonzero(outlined)
    assert (rows.min(), rows.max()) == (40, 59)
    assert (columns.min(), columns.max()) == (210, 229)  # in the prediction's panel


def test_legend_has_the_classes_that_occur():
    label = np.array([[0, 2], [255, 2]])
    strip = draw_legend([label], **COLOURS, width=300)
    shown = [(strip == colour).all(-1).any() for colour in COLOURS["palette"]]
    assert shown == [True, False, True]
    assert strip.shape == draw_legend([label[:1, :1]], **COLOURS, width=300).shape


def test_legend_of_many_classes_is_bounded():
    classes = [f"class {i}" for i in range(150)]
    palette = [[i, 255 - i, 7] for i in range(150)]
    label = np.repeat(np.arange(150), np.arange(1, 151))[None]
    strip = draw_legend([label], classes, palette, 400)
    assert strip.shape == (66, 400, 3)
    shown = [(strip == colour).all(-1).any() for colour in palette]
    assert shown[149] and not shown[0]


@pytest.mark.parametrize(
    ("stages", "entropies", "threshold", "text"),
    [
        ([0], [[0.482, float("nan")]], 0.5, "stopped after stage 0, H 0.482 < 0.5, 2 GMACs"),
        ([1], [[0.512, 0.493]], 0.5, "thought on to stage 1, H 0.512 >= 0.5, 2 GMACs"),
        ([1], [[0.9, 0.4, 0.1]], 0.5, "stopped after stage 1, H 0.400 < 0.5, 2 GMACs"),
        ([1], [[0.5, 0.1]], None, "thought on to stage 1, H 0.500, 2 GMACs"),
        ([0, 1], [[0.2, 9], [0.6, 9]], 0.5,
         "windows by stage 0: 1, 1: 1, mean H 0.400, threshold 0.5, 2 GMACs"),
    ],
)  # fmt: skip
def test_the_entropy_is_the_one_that_the_gate_compared(stages, entropies, threshold, text):
    meta = {} if threshold is None else dict(gate_threshold=threshold)
    sample = SegDataSample(metainfo=meta)
    sample.set_field(torch.tensor(stages), "exit_stage")
    sample.set_field(torch.tensor(entropies), "gate_entropy")
    sample.set_field(2.0, "gmacs")
    assert _describe(sample) == text


@torch.no_grad()
def test_results_carry_the_threshold():
    images, samples = batch(1)
    found = segmentor(EntropyGate(0.7)).predict(images, samples)[0]
    assert found.gate_threshold == 0.7
    assert "gate_threshold" not in segmentor(FixedGate(0)).predict(images, None)[0]
