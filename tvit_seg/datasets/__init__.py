"""Datasets of our own and the check of anybody's before training."""

from .camvid import CamVidDataset
from .check import DataError, check_config_data, check_dataset
from .scenes import SceneDataset

__all__ = ["CamVidDataset", "DataError", "SceneDataset", "check_config_data", "check_dataset"]
