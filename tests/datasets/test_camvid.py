"""CamVid's layout, classes and colours."""

import numpy as np
from helpers.survey_data import SIZE, save, settings
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS

from tvit_seg.datasets.camvid import CamVidDataset


def test_classes_and_palette():
    meta = CamVidDataset.METAINFO
    colours = dict(zip(meta["classes"], meta["palette"], strict=True))
    assert len(colours) == 11
    assert (meta["classes"][0], meta["classes"][10]) == ("sky", "bicyclist")
    assert colours["road"] == [128, 64, 128]
    assert DATASETS.get("CamVidDataset") is CamVidDataset


def test_loads_labels(tmp_path):
    save(tmp_path, "a", (2, 10, 255), ending=".jpg")
    pipeline = ["LoadImageFromFile", "LoadAnnotations", "PackSegInputs"]
    options = settings(tmp_path, metainfo=None, img_suffix=".jpg")
    with DefaultScope.overwrite_default_scope("mmseg"):
        (item,) = CamVidDataset(**options, pipeline=[dict(type=name) for name in pipeline])
    assert tuple(item["inputs"].shape) == (3, *SIZE)
    assert set(np.unique(item["data_samples"].gt_sem_seg.data)) == {2, 10, 255}
