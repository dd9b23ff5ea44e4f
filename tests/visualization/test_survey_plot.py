"""The picture of a dataset."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from helpers.survey_data import save, settings, survey
from mmseg.datasets import BaseSegDataset
from PIL import Image

from tvit_seg.datasets import TimmDataset
from tvit_seg.datasets.corrupt import build_guarded
from tvit_seg.datasets.survey import Survey, survey_of
from tvit_seg.visualization import survey_plot
from tvit_seg.visualization.survey_plot import _paint, plot_surveys


def test_picture(tmp_path):
    for i in range(3):
        save(tmp_path, f"{i}", (0, 1, 2))
    found = survey(tmp_path)
    plot_surveys([found, Survey(None, "empty")], tmp_path / "new" / "plot.png", count=2)
    one = cv2.imread(str(tmp_path / "new" / "plot.png")).shape
    plot_surveys([found, found], tmp_path / "plot.png")
    assert cv2.imread(str(tmp_path / "plot.png")).shape[0] > one[0]


def test_label_beside_its_image_as_training_sees_it(tmp_path):
    """Label 1 becomes class 0 and its colour; 0 is ignored and black."""
    save(tmp_path, "a", (0, 1))
    palette = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    options = settings(tmp_path, reduce_zero_label=True)
    options["metainfo"] = dict(classes=("a", "b", "c"), palette=palette)
    found = survey_of(BaseSegDataset(**options, lazy_init=True)).run()
    drawn = _paint(found, *found.samples[0])
    assert drawn.shape[1] == 2 * 10
    assert drawn[0, 1].tolist() == [90, 90, 90]
    assert drawn[0, 11].tolist() == [255, 0, 0]
    assert drawn[0, 10].tolist() == [0, 0, 0]


def test_names_of_files_do_not_run_into_each_other(tmp_path, monkeypatch):
    for i in range(4):
        save(tmp_path, f"frankfurt_000000_00{i}294_leftImg8bit_and_a_very_long_name", (0, 1))
    figures = []
    monkeypatch.setattr(survey_plot, "save_figure", lambda figure, *_, **__: figures.append(figure))
    plot_surveys([survey(tmp_path)], tmp_path / "plot.png")
    (figure,) = figures
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    assert len(boxes) == 4
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


@pytest.mark.parametrize("own", [True, False])
def test_colours_of_a_palette_png(tmp_path, own):
    save(tmp_path, "a", (0, 1, 2))
    label = Image.open(tmp_path / "labels/a.png").convert("P")
    label.putdata(list(np.resize([0, 1, 2], 80)))
    label.putpalette([9, 8, 7, 10, 20, 30, 200, 100, 0] + [0] * 30)
    label.save(tmp_path / "labels/a.png")
    named = [[1, 1, 1], [2, 2, 2], [3, 3, 3]]
    meta = dict(classes=("a", "b", "c"), **({} if own else dict(palette=named)))
    options = settings(tmp_path, metainfo=meta)
    expected = [[9, 8, 7], [10, 20, 30], [200, 100, 0]] if own else named
    found = survey_of(BaseSegDataset(**options, lazy_init=True)).run()
    assert found.dataset.metainfo["palette"] == expected
    dataset = build_guarded(dict(type="BaseSegDataset", **options))
    assert dataset.metainfo["palette"] == expected


def test_labels_of_whole_images(tmp_path):
    save(tmp_path / "train", "a")
    plot_surveys([survey_of(TimmDataset(str(tmp_path), "train")).run()], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").exists()


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="surveys"):
        plot_surveys([Survey(None, "empty")], tmp_path / "plot.png")
