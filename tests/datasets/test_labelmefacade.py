"""LabelMeFacade's classes and colours."""

from mmseg.registry import DATASETS

from tvit_seg.datasets import LabelMeFacadeDataset


def test_classes_and_palette():
    meta = LabelMeFacadeDataset.METAINFO
    assert meta["classes"][0] == "building"
    assert meta["classes"][7] == "window"
    assert len(meta["palette"]) == len(set(map(tuple, meta["palette"]))) == 8
    assert DATASETS.get("LabelMeFacadeDataset") is LabelMeFacadeDataset
