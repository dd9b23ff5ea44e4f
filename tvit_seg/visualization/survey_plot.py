"""A plot of a dataset: frequencies of its classes, and some labels over their images."""

from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from ..datasets.images import to_picture
from ..datasets.survey import LabelMapSurvey, Survey
from ..utils.checks import check
from .plots import save_figure
from .visualizer import ThinkingVisualizer

_ROW = 0.24  # inches that a class takes
_LETTERS = 190  # of titles that fit side by side


def plot_surveys(surveys: Sequence[Survey], path: str | Path, count: int = 4) -> None:
    """Draw a histogram of the classes, and samples of each dataset.

    Args:
        surveys: Of parts of one dataset; those without samples are left out.
        path: File to write; its ending names the format.
        count: Samples of each part.

    Raises:
        ConfigError: There is no sample.
    """
    surveys = [survey for survey in surveys if survey.samples]
    check(bool(surveys), "surveys", surveys, "some with samples")
    classes = surveys[0].classes
    heights = [max(2.5, 1 + _ROW * len(classes)), *[2.6] * len(surveys)]
    figure = Figure(figsize=(12, sum(heights)), layout="constrained")
    top, *rows = figure.subfigures(1 + len(surveys), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_histogram(top.subplots(), surveys, classes)
    for survey, row in zip(surveys, rows, strict=True):
        _draw_samples(row.subplots(1, count, squeeze=False)[0], survey)
        row.suptitle(f"{survey.name}: {len(survey.samples)} samples", fontsize=10)
    save_figure(figure, path, dpi=80)


def _draw_histogram(axes: Axes, surveys: Sequence[Survey], classes: Sequence[str]) -> None:
    thickness = 0.8 / len(surveys)
    places = np.arange(len(classes))
    drawn = [survey for survey in surveys if len(survey.shares) == len(classes)]
    for index, survey in enumerate(drawn):
        offset = (index - (len(drawn) - 1) / 2) * thickness
        axes.barh(places + offset, survey.shares, thickness, label=survey.name)
    axes.set_yticks(places, classes, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_xlim(left=0)
    what = "images" if surveys[0].pixels is None else "labelled pixels"
    axes.set_xlabel(f"share of {what} (%)")
    axes.grid(alpha=0.3, axis="x")
    axes.legend()


def _draw_samples(axes: Sequence[Axes], survey: Survey) -> None:
    """Draw evenly spaced samples."""
    chosen = np.linspace(0, len(survey.samples) - 1, len(axes)).astype(int)
    for place, index in zip(axes, chosen, strict=True):
        sample = survey.samples[index]
        place.imshow(_paint(survey, *sample))
        place.set_title(_shorten(Path(sample[0]).name, _LETTERS // len(axes)), fontsize=7)
        place.axis("off")


def _shorten(name: str, most: int) -> str:
    """A file name without its middle where it is longer than ``most`` characters."""
    if len(name) <= most:
        return name
    return f"{name[: most // 3]}...{name[-(most - most // 3 - 3) :]}"


def _paint(survey: Survey, image_path: str, label_path: str | None = None) -> np.ndarray:
    """Draw the image (H, W, 3) RGB, with its label map, if there is one, beside it."""
    if not isinstance(survey, LabelMapSurvey):
        return mmcv.imread(image_path, channel_order="rgb")
    info = survey.info_of(image_path)
    image = mmcv.bgr2rgb(to_picture(survey.reader.image(info)))
    if label_path is None:
        return image
    label = survey.reader.final_label(info)
    regions = PixelData(data=torch.from_numpy(label.astype(np.int64))[None])
    visualizer = ThinkingVisualizer(min_height=1)
    visualizer.dataset_meta = survey.dataset.metainfo
    return visualizer.paint(image, SegDataSample(gt_sem_seg=regions))
