"""Sliding windows cover the image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tvit_seg.models.segmentors.windows import Windows, window_starts


@given(st.integers(1, 200), st.integers(1, 80), st.data())
def test_windows_cover_every_pixel(length, crop, data):
    stride = data.draw(st.integers(1, crop))
    starts = window_starts(length, crop, stride)
    covered = torch.zeros(length)
    for start in starts:
        assert start >= 0
        assert start + min(crop, length) <= length
        covered[start : start + crop] = 1
    assert covered.all()
    assert starts == sorted(set(starts))


@pytest.mark.parametrize("length", range(20, 130, 7))
def test_as_many_windows_as_mmseg(length):
    crop, stride = 32, 24
    assert len(window_starts(length, crop, stride)) == (
        max(length - crop + stride - 1, 0) // stride + 1
    )


def test_boxes_go_row_by_row():
    assert Windows((40, 50), (32, 32), (32, 32)).boxes.tolist() == [
        [0, 0, 32, 32],
        [0, 18, 32, 50],
        [8, 0, 40, 32],
        [8, 18, 40, 50],
    ]
