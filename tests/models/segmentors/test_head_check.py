"""Decode heads that do not fit a backbone."""

import pytest
import torch
from helpers.builders import LINEAR, MASK, VIT
from mmseg.registry import MODELS

from tvit_seg import ThinkingEncoderDecoder
from tvit_seg.engine import ThinkingRunner
from tvit_seg.errors import ConfigError
from tvit_seg.models.segmentors.head_check import check_heads

SWIN = dict(type="ThinkingSwin", embed_dims=32, depths=(1, 1), num_heads=(2, 4))
SWIN.update(thinking_stages=((1, 2), (2, 4)), out_indices=(0, 1))
WIDE = dict(LINEAR, in_channels=64, channels=64)
SEGFORMER = dict(type="SegformerHead", channels=8, num_classes=5)
DPT = dict(type="DPTHead", in_channels=[32] * 4, in_index=[0, 1, 2, 3], channels=8, num_classes=5)
DPT.update(embed_dims=32, post_process_channels=[8] * 4, input_transform="multiple_select")
PID = dict(in_channels=32, channels=8, num_classes=5)
DEEPLAB = dict(type="DepthwiseSeparableASPPHead", in_channels=64, in_index=1, channels=8)
DEEPLAB.update(num_classes=5, c1_in_channels=32, c1_channels=4, dilations=(1, 2))


@pytest.mark.parametrize(
    ("backbone", "head", "message"),
    [
        (VIT, [LINEAR, LINEAR], "decode_head must be .*CascadeEncoderDecoder"),
        (VIT, "fcn", "decode_head must be the config"),
        (VIT, dict(LINEAR, num_classes=7.5), "decode_head num_classes"),
        (VIT, WIDE, r"FCNHead in_channels must be 32, the channels of ThinkingViT .*, got 64"),
        (VIT, dict(LINEAR, in_index=1), "FCNHead in_index must be below 1"),
        (
            SWIN,
            dict(SEGFORMER, in_channels=[32, 32], in_index=[0, 1]),
            r"in_channels must be \[32, 64\], .*, got \[32, 32\]",
        ),
        (VIT, DPT, "output_cls_token must be True .* for DPTHead"),
        (dict(VIT, output_cls_token=True), MASK, "output_cls_token must be False"),
        (VIT, dict(type="PIDHead", **PID), "not PIDNet"),
        (SWIN, dict(DEEPLAB, c1_in_channels=48), "c1_in_channels must be 32"),
    ],
)
def test_heads_that_do_not_fit(backbone, head, message):
    with pytest.raises(ConfigError, match=message):
        ThinkingEncoderDecoder(backbone=backbone, decode_head=head)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([WIDE], "in_channels must be 32"),
        (["x"], "auxiliary_head must be the config"),
        (dict(LINEAR, num_classes=0), "auxiliary_head num_classes"),
    ],
)
def test_auxiliary_heads_are_checked(heads, message):
    with pytest.raises(ConfigError, match=message):
        ThinkingEncoderDecoder(backbone=VIT, decode_head=LINEAR, auxiliary_head=heads)


def test_mmsegs_own_segmentors(tmp_path):
    """The runner checks their heads; heads that fit pass, cascades too."""
    fits = MODELS.build(dict(type="EncoderDecoder", backbone=SWIN, decode_head=DEEPLAB))
    check_heads(fits)
    ocr = dict(type="OCRHead", in_channels=32, channels=8, ocr_channels=4, num_classes=5)
    cascade = dict(type="CascadeEncoderDecoder", num_stages=2, backbone=VIT)
    check_heads(MODELS.build(dict(cascade, decode_head=[LINEAR, ocr])))
    check_heads(torch.nn.Linear(1, 1))
    model = dict(type="EncoderDecoder", backbone=VIT, decode_head=WIDE)
    with pytest.raises(ConfigError, match="FCNHead in_channels"):
        ThinkingRunner(model, work_dir=str(tmp_path), default_scope="mmseg")


@pytest.mark.parametrize("type", ["Mask2FormerHead", "mmseg.Mask2FormerHead"])
def test_heads_of_absent_packages(type, monkeypatch):
    monkeypatch.setattr("tvit_seg.models.segmentors.head_check.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="without mmdetection"):
        ThinkingEncoderDecoder(backbone=VIT, decode_head=dict(type=type, num_classes=5))


def test_concatenated_maps_count_as_one_input():
    head = dict(LINEAR, in_channels=[32, 64], in_index=[0, 1], input_transform="resize_concat")
    model = ThinkingEncoderDecoder(backbone=SWIN, decode_head=dict(head, channels=96))
    assert model.decode_head.in_channels == 96


def test_heads_after_a_neck_are_not_checked():
    neck = dict(type="MultiLevelNeck", in_channels=[32], out_channels=16, scales=[1])
    head = dict(LINEAR, in_channels=16, channels=16)
    ThinkingEncoderDecoder(backbone=VIT, neck=neck, decode_head=head)
