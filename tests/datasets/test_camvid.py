"""CamVid's layout, classes and colours."""

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS
from PIL import Image

from tvit_seg.datasets.camvid import CamVidDataset


@pytest.fixture
def build(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    label = np.resize(np.array([2, 10, 255], np.uint8), (12, 16))
    Image.fromarray(label).save(tmp_path / "labels/a.png")
    Image.fromarray(label).convert("RGB").save(tmp_path / "images/a.jpg")
    prefix = dict(img_path="images", seg_map_path="labels")
    return lambda **kwargs: CamVidDataset(data_root=str(tmp_path), data_prefix=prefix, **kwargs)


def test_classes_and_palette():
    meta = CamVidDataset.METAINFO
    colours = dict(zip(meta["classes"], meta["palette"], strict=True))
    assert len(colours) == 11
    assert (meta["classes"][0], meta["classes"][10]) == ("sky", "bicyclist")
    assert colours["road"] == [128, 64, 128]
    assert DATASETS.get("CamVidDataset") is CamVidDataset


def test_loads_labels(build):
    pipeline = ["LoadImageFromFile", "LoadAnnotations", "PackSegInputs"]
    with DefaultScope.overwrite_default_scope("mmseg"):
        dataset = build(pipeline=[dict(type=name) for name in pipeline])
        (item,) = dataset
    assert tuple(item["inputs"].shape) == (3, 12, 16)
    assert set(np.unique(item["data_samples"].gt_sem_seg.data)) == {2, 10, 255}
    assert not dataset.reduce_zero_label
    assert dataset.ignore_index == 255


def test_subset_of_classes_is_mapped(build):
    dataset = build(metainfo=dict(classes=("road", "car")))
    assert [dataset.label_map[label] for label in (3, 8, 0)] == [0, 1, 255]
    assert dataset.metainfo["palette"] == [[128, 64, 128], [64, 0, 128]]
