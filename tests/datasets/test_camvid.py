import numpy as np
import pytest
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS
from PIL import Image

from tvit_seg.datasets.camvid import CamVidDataset


@pytest.fixture
def root(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for folder in ("img_dir", "ann_dir"):
            (tmp_path / folder / split).mkdir(parents=True)
        for i in range(count):
            image = np.full((12, 16, 3), 40 * i, np.uint8)
            label = np.full((12, 16), i, np.uint8)
            label[0], label[1] = 10, 255
            Image.fromarray(image).save(tmp_path / "img_dir" / split / f"{split}_{i}.jpg")
            Image.fromarray(label).save(tmp_path / "ann_dir" / split / f"{split}_{i}.png")
    return tmp_path


def build(root, split, **kwargs):
    return CamVidDataset(
        data_root=str(root),
        data_prefix={"img_path": f"img_dir/{split}", "seg_map_path": f"ann_dir/{split}"},
        **kwargs,
    )


def test_classes_and_palette():
    meta = CamVidDataset.METAINFO
    assert len(meta["classes"]) == len(meta["palette"]) == 11
    colours = dict(zip(meta["classes"], meta["palette"], strict=True))
    assert meta["classes"][0] == "sky" and meta["classes"][10] == "bicyclist"
    assert colours["road"] == [128, 64, 128]
    assert colours["pavement"] == [60, 40, 222]
    assert colours["bicyclist"] == [0, 128, 192]


@pytest.mark.parametrize(("split", "count"), [("train", 3), ("val", 2)])
def test_lists_the_layout(root, split, count):
    dataset = build(root, split)
    assert len(dataset) == count
    for i in range(count):
        info = dataset.get_data_info(i)
        assert info["img_path"] == f"{root}/img_dir/{split}/{split}_{i}.jpg"
        assert info["seg_map_path"] == f"{root}/ann_dir/{split}/{split}_{i}.png"
    assert not dataset.reduce_zero_label and dataset.ignore_index == 255


def test_loads_labels_through_a_pipeline(root):
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {"type": "PackSegInputs"},
    ]
    with DefaultScope.overwrite_default_scope("mmseg"):
        item = build(root, "train", pipeline=pipeline)[2]
    label = item["data_samples"].gt_sem_seg.data
    assert tuple(item["inputs"].shape) == (3, 12, 16)
    assert set(np.unique(label.numpy())) == {2, 10, 255}


@pytest.mark.parametrize("name", ["CamVidDataset", "tvit_seg.CamVidDataset"])
def test_is_registered(name):
    assert DATASETS.get(name) is CamVidDataset


def test_subset_of_classes_is_mapped(root):
    dataset = build(root, "train", metainfo={"classes": ("road", "car")})
    assert dataset.label_map[3] == 0 and dataset.label_map[8] == 1 and dataset.label_map[0] == 255
    assert dataset.metainfo["palette"] == [[128, 64, 128], [64, 0, 128]]
