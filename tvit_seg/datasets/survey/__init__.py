"""One pass over a dataset that yields problems and counts classes."""

from mmseg.datasets import BaseSegDataset
from torch.utils.data import Dataset

from ..timm_dataset import TimmDataset
from .base import Survey
from .files import require_folders, searched
from .images import ImageSurvey
from .label_maps import LabelMapSurvey
from .problems import Problem, by_kind, format_problems

__all__ = [
    "ImageSurvey",
    "LabelMapSurvey",
    "Problem",
    "Survey",
    "by_kind",
    "format_problems",
    "require_folders",
    "searched",
    "survey_of",
]


def survey_of(
    dataset: Dataset,
    name: str = "data",
    num_classes: int | None = None,
    needs_labels: bool = True,
) -> Survey:
    """Return the survey, not yet run, that fits the kind of a dataset.

    Raises:
        TypeError: It is neither a ``BaseSegDataset`` nor a ``TimmDataset``.
    """
    if isinstance(dataset, TimmDataset):
        return ImageSurvey(dataset, name)
    if isinstance(dataset, BaseSegDataset):
        return LabelMapSurvey(dataset, name, num_classes, needs_labels)
    kind = type(dataset).__name__
    raise TypeError(f"cannot check a {kind}: only BaseSegDataset, its subclasses and TimmDataset")
