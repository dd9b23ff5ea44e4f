"""The picture of a dataset."""

import cv2
import pytest
from helpers.survey_data import save, settings, survey
from mmseg.datasets import BaseSegDataset

from tvit_seg.datasets import TimmDataset
from tvit_seg.datasets.survey import Survey, survey_of
from tvit_seg.visualization.survey_plot import _paint, plot_surveys


def test_picture(tmp_path):
    for i in range(3):
        save(tmp_path, f"{i}", (0, 1, 2))
    found = survey(tmp_path)
    plot_surveys([found, Survey(None, "empty")], tmp_path / "new" / "plot.png", count=2)
    one = cv2.imread(str(tmp_path / "new" / "plot.png")).shape
    plot_surveys([found, found], tmp_path / "plot.png")
    assert cv2.imread(str(tmp_path / "plot.png")).shape[0] > one[0]


def test_overlay_shows_what_training_sees(tmp_path):
    """Label 1 becomes class 0 and its colour; 0 is ignored and darkens."""
    save(tmp_path, "a", (0, 1))
    palette = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    options = settings(tmp_path, reduce_zero_label=True)
    options["metainfo"] = dict(classes=("a", "b", "c"), palette=palette)
    found = survey_of(BaseSegDataset(**options, lazy_init=True)).run()
    drawn = _paint(found, *found.samples[0])
    assert drawn.shape == (8, 10, 3)
    red, green, _ = drawn[0, 1].tolist()
    assert red > 150 > green
    assert drawn[0, 0].max() < 60


def test_labels_of_whole_images(tmp_path):
    save(tmp_path / "train", "a")
    plot_surveys([survey_of(TimmDataset(str(tmp_path), "train")).run()], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").exists()


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="surveys"):
        plot_surveys([Survey(None, "empty")], tmp_path / "plot.png")
