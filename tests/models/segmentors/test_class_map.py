"""Class maps found class by class."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tvit_seg.models.segmentors.class_map import candidates, class_map


def all_at_once(logits, size, align_corners=False):
    """Every logit at the final size, then the first of the largest ones."""
    resized = F.interpolate(logits[None], size, mode="bilinear", align_corners=align_corners)[0]
    largest = resized.amax(dim=0, keepdim=True)
    return (resized == largest).int().argmax(dim=0, keepdim=True)


@given(
    st.integers(0, 1000),
    st.integers(2, 12),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.booleans(),
)
def test_equals_resizing_all_logits(seed, classes, small, size, align_corners):
    logits = torch.randn(classes, *small, generator=torch.Generator().manual_seed(seed))
    found = class_map(logits, size, align_corners=align_corners)
    assert found.dtype == torch.int64
    assert torch.equal(found, all_at_once(logits, size, align_corners))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_smooth_logits_of_many_classes(scale):
    coarse = torch.randn(1, 300, 4, 5) * torch.linspace(0.1, 3, 300).view(-1, 1, 1)
    logits = scale * F.interpolate(coarse, (24, 30), mode="bilinear")[0] + 10 * scale
    size = torch.Size((65, 91))
    assert len(candidates(logits, size)) < 300
    assert torch.equal(class_map(logits, size), all_at_once(logits, size))


@pytest.mark.parametrize("size", [None, (4, 6), (9, 11), (2, 3)])
def test_ties_go_to_the_lowest_class(size):
    logits = torch.zeros(5, 4, 6)
    logits[[2, 4]] = 1.0
    assert (class_map(logits, size) == 2).all()


def test_a_class_may_win_between_pixels_only():
    logits = torch.tensor([[[3.0, 0.0]], [[0.0, 3.0]], [[2.0, 2.0]]])
    assert class_map(logits, (1, 6)).unique().tolist() == [0, 1, 2]


def test_masked_classes_never_win():
    logits = torch.randn(4, 5, 5)
    logits[1] = -torch.inf
    assert 1 not in class_map(logits, (17, 13))


def test_a_single_class_is_compared_with_the_threshold():
    logits = torch.tensor([[[-4.0, 4.0]]])
    assert class_map(logits, threshold=0.5).tolist() == [[[0, 1]]]
    assert class_map(logits, (1, 4), threshold=0.5).tolist() == [[[0, 0, 1, 1]]]
    assert class_map(logits, (1, 4), threshold=0.01).tolist() == [[[1, 1, 1, 1]]]
