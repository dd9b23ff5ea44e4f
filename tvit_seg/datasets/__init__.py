"""Datasets, and the check of any dataset before training."""

from ..errors import CorruptImageError, DataError
from .camvid import CamVidDataset
from .check import check_config_data, check_dataset
from .corrupt import SkipCorrupt
from .labelmefacade import LabelMeFacadeDataset
from .samplers import RepeatedAugSampler
from .scenes import SceneDataset
from .timm_dataset import TimmDataset

__all__ = [
    "CamVidDataset",
    "CorruptImageError",
    "DataError",
    "LabelMeFacadeDataset",
    "RepeatedAugSampler",
    "SceneDataset",
    "SkipCorrupt",
    "TimmDataset",
    "check_config_data",
    "check_dataset",
]
