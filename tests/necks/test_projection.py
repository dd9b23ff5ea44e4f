import pytest
import torch
from builders import LINEAR, VIT, batch
from contracts import close

from tvit_seg import FixedGate, ThinkingEncoderDecoder
from tvit_seg.necks import ProjectionNeck

NECK = dict(type="ProjectionNeck", in_channels=[32], out_channels=24)


def test_fills_all_channels_of_every_stage():
    model = ThinkingEncoderDecoder(
        backbone=VIT, neck=NECK, decode_head=dict(LINEAR, in_channels=24, channels=24)
    ).eval()
    images, _ = batch()
    for stage in range(2):
        model.backbone.set_gate(FixedGate(stage), has_decode_head=True)
        (found,) = model.extract_feat(images)
        assert found.shape[1] == 24
        assert (found.std(dim=(0, 2, 3)) > 0).all()


def test_zero_padding_selects_the_columns_of_a_stage():
    neck = ProjectionNeck([8], 6)
    narrow = torch.randn(2, 3, 4, 4)
    padded = torch.cat((narrow, torch.zeros(2, 5, 4, 4)), dim=1)
    conv = neck.convs[0]
    expected = torch.nn.functional.conv2d(narrow, conv.weight[:, :3], conv.bias)
    close(neck((padded,))[0], expected)


def test_number_of_maps():
    with pytest.raises(ValueError, match="for 2 maps, the backbone returns 1"):
        ProjectionNeck([8, 8], 6)((torch.zeros(1, 8, 2, 2),))
