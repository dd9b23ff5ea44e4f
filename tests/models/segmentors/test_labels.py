import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from tvit_seg.models.segmentors.labels import pad_labels, require_labels


def sample(**maps):
    return SegDataSample(**{key: PixelData(data=value) for key, value in maps.items()})


def test_labels_are_needed():
    labelled = sample(gt_sem_seg=torch.zeros(1, 2, 2))
    require_labels([labelled])
    with pytest.raises(ValueError, match="needs LoadAnnotations"):
        require_labels([labelled, SegDataSample()])


def test_padding():
    given = sample(gt_sem_seg=torch.zeros(1, 2, 2), gt_edge_map=torch.ones(1, 2, 2))
    (padded,) = pad_labels([given], (0, 1, 0, 2), 9)
    for name in ("gt_sem_seg", "gt_edge_map"):
        old, new = given.get(name).data, padded.get(name).data
        assert new.shape == (1, 4, 3)
        assert torch.equal(new[:, :2, :2], old)
        assert new[:, 2:].eq(9).all() and new[..., 2:].eq(9).all()
