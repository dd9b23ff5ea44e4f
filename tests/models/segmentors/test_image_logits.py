"""Labels from coarse logits are those of upsampling all classes at once, as mmseg does."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from mmseg.models import BaseSegmentor

from tvit_seg.models.segmentors.image_logits import ImageLogits
from tvit_seg.models.segmentors.postprocess import label_map
from tvit_seg.models.segmentors.windows import Windows

sides = st.integers(1, 40)


class MMSeg(BaseSegmentor):
    """mmseg's own postprocessing."""

    encode_decode = extract_feat = loss = predict = _forward = None

    def __init__(self, align_corners):
        super().__init__()
        self.align_corners = align_corners
        self.decode_head = type("", (), dict(threshold=0.5))


def image_logits(coarse, padded, windows, align_corners):
    def upsample(x):
        return F.interpolate(x, padded, mode="bilinear", align_corners=align_corners)

    return ImageLogits(coarse, upsample, windows)


@given(
    st.integers(0, 1000),
    st.integers(1, 12),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(8, 30), st.integers(8, 30)),
    st.tuples(sides, sides),
    st.sampled_from([None, "horizontal", "vertical"]),
    st.booleans(),
    st.booleans(),
)
def test_whole_images(seed, classes, small, size, original, flip, smooth, align_corners):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, *small, generator=generator)
    if smooth:  # few classes can win
        coarse = 0.1 * coarse + torch.randn(1, classes, 1, 1, generator=generator)
    logits = image_logits(coarse, (32, 32), Windows(size), align_corners)
    meta = dict(ori_shape=original, img_padding_size=(1, 2, 0, 3))
    meta |= dict(flip=flip is not None, flip_direction=flip)
    found = label_map(logits, meta, 0.5, align_corners)
    plain = F.interpolate(coarse, (32, 32), mode="bilinear", align_corners=align_corners)
    plain = plain[..., : size[0], : size[1]]
    assert torch.equal(logits[:], plain[0])
    assert torch.equal(found, mmseg_labels(plain, meta, align_corners))


@pytest.mark.parametrize("original", [(50, 61), (70, 40), (123, 200)])
@pytest.mark.parametrize("classes", [1, 7])
def test_windows(original, classes):
    windows = Windows((50, 61), (30, 32), (20, 17))
    coarse = torch.randn(len(windows), classes, 3, 3)
    logits = image_logits(coarse, (32, 32), windows, False)
    upsampled = F.interpolate(coarse, (32, 32), mode="bilinear")[..., :30, :32]
    canvas, cover = torch.zeros(1, classes, 50, 61), torch.zeros(50, 61)
    for area, window in zip(windows.areas, upsampled, strict=True):
        canvas[0][area] += window
        cover[area] += 1
    canvas /= cover
    assert torch.equal(logits[:], canvas[0])
    meta = dict(ori_shape=original)
    assert torch.equal(label_map(logits, meta, 0.5), mmseg_labels(canvas, meta, False))


def test_classes_that_cannot_win_are_not_upsampled():
    coarse = torch.randn(1, 9, 8, 8) + 10 * torch.tensor([0, 1] * 4 + [0]).view(-1, 1, 1)
    logits = image_logits(coarse, (64, 64), Windows((64, 64)), False)
    assert set(logits.candidates()) <= {1, 3, 5, 7}


def mmseg_labels(logits, meta, align_corners):
    from mmseg.structures import SegDataSample

    result = MMSeg(align_corners).postprocess_result(logits, [SegDataSample(metainfo=meta)])[0]
    return result.pred_sem_seg.data
