"""Label maps as mmseg makes them."""

import pytest
import torch
from helpers.builders import segmentor
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample

METAINFO = {
    "same size": dict(ori_shape=(32, 40)),
    "resized": dict(ori_shape=(50, 61)),
    "padded": dict(ori_shape=(30, 37), padding_size=(1, 2, 0, 2)),
    "padded for testing": dict(ori_shape=(32, 40), img_padding_size=(1, 2, 0, 2)),
    "flipped": dict(ori_shape=(32, 40), flip=True, flip_direction="vertical"),
    "flipped and resized": dict(ori_shape=(16, 20), flip=True, flip_direction="horizontal"),
    "none": None,
}


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("metainfo", METAINFO.values(), ids=METAINFO)
def test_equals_mmseg(metainfo, classes):
    model = segmentor()
    model.decode_head.threshold = 0.6
    logits = torch.randn(2, classes, 32, 40)

    def given():
        return None if metainfo is None else [SegDataSample(metainfo=metainfo) for _ in range(2)]

    ours = model.postprocess_result(logits, given())
    theirs = EncoderDecoder.postprocess_result(model, logits, given())
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.pred_sem_seg.data, b.pred_sem_seg.data)
        torch.testing.assert_close(a.seg_logits.data, b.seg_logits.data)
    model.test_cfg["seg_logits"] = False
    for a, b in zip(model.postprocess_result(logits, given()), theirs, strict=True):
        assert torch.equal(a.pred_sem_seg.data, b.pred_sem_seg.data)
        assert "seg_logits" not in a


def test_logits_of_the_original_size_are_not_copied():
    logits = torch.randn(1, 5, 32, 40)
    found = segmentor().postprocess_result(logits, None)[0].seg_logits.data
    assert found.data_ptr() == logits.data_ptr()


def test_equal_scores_go_to_the_first_class():
    found = segmentor().postprocess_result(torch.zeros(1, 5, 4, 4), None)[0]
    assert (found.pred_sem_seg.data == 0).all()


def test_unknown_flip():
    sample = SegDataSample(metainfo=dict(ori_shape=(4, 4), flip=True, flip_direction="diagonal"))
    with pytest.raises(ValueError, match="flip_direction must be"):
        segmentor().postprocess_result(torch.zeros(1, 5, 4, 4), [sample])


def test_an_image_of_unknown_size():
    with pytest.raises(ValueError, match="images come without ori_shape; meta_keys of PackSegInp"):
        segmentor().postprocess_result(torch.randn(1, 5, 8, 8), [SegDataSample()])
