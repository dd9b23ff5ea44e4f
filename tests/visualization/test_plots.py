"""Sweeps as pictures."""

import cv2
import numpy as np
import pytest

from tvit_seg.evaluation.stages import ClassificationEvaluator, StagePredictions
from tvit_seg.evaluation.sweep import ImageSweep, Sweep
from tvit_seg.visualization import plots
from tvit_seg.visualization.plots import plot_keep_ratios, plot_sweep


@pytest.fixture
def swept():
    entropies = np.random.default_rng(0).random((6, 1, 2), np.float32)
    figures = dict(metainfo={}, shape=(8, 8), gmacs=np.array([1, 4]), seconds=np.array([1, 3]))
    images = [
        ImageSweep.from_predictions(
            StagePredictions(entropy=entropy, **figures), lambda exits: np.array([exits[0], 1])
        )
        for entropy in entropies
    ]
    return Sweep(images, ClassificationEvaluator)


def test_sweep(swept, tmp_path):
    plot_sweep(swept, [swept.row(0.5)], tmp_path / "new" / "sweep.png", "title")
    assert cv2.imread(str(tmp_path / "new" / "sweep.png")).shape == (450, 1200, 3)


def test_keep_ratios(swept, tmp_path):
    plot_keep_ratios({0.7: swept, 1.0: swept}, swept.gate[:1], tmp_path / "ratios.png")
    assert cv2.imread(str(tmp_path / "ratios.png")).shape == (500, 800, 3)


def test_labels_lie_inside_their_axes(swept, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, *_: figures.append(figure))
    plot_sweep(swept, [swept.row(0.5)], tmp_path / "sweep.png")
    figures[0].draw_without_rendering()
    for axes in figures[0].axes:
        frame = axes.get_window_extent()
        assert len(axes.texts) == 2
        for text in axes.texts:
            box = text.get_window_extent()
            assert frame.x0 < box.x0 and box.x1 < frame.x1
            assert frame.y0 < box.y0 and box.y1 < frame.y1
