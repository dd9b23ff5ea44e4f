"""Sweeps as pictures."""

import cv2
import numpy as np
import pytest

from tvit_seg.evaluation.stages import ClassificationEvaluator, StagePredictions
from tvit_seg.evaluation.sweep import ImageSweep, Sweep
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
