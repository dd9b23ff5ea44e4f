"""Nested heads in segmentors: option of ours, and as a drop-in in mmseg's."""

import pytest
import torch
from helpers.builders import LINEAR, MASK, VIT, batch, lively, segmentor
from mmseg.registry import MODELS

from tvit_seg import ThinkingEncoderDecoder, stage_macs
from tvit_seg.cost import stage_parameters
from tvit_seg.errors import ConfigError, ExportError
from tvit_seg.models.decode_heads import Nested, StageDecoder
from tvit_seg.models.gates import FixedGate, RandomGate
from tvit_seg.models.segmentors.head_check import check_heads
from tvit_seg.weights.load import load_pretrained

BN = dict(norm_cfg=dict(type="BN"))
LOSS = dict(num_classes=5, dropout_ratio=0, loss_decode=dict(type="CrossEntropyLoss"))
PSP = dict(type="PSPHead", in_channels=32, channels=16, **BN, **LOSS)
UPER = dict(type="UPerHead", in_channels=[16] * 4, in_index=[0, 1, 2, 3], channels=16, **BN, **LOSS)
NECK = dict(type="MultiLevelNeck", in_channels=[32], out_channels=16, scales=[4, 2, 1, 0.5])
UNFIT = dict(type="GCHead", in_channels=32, channels=16, **BN, **LOSS)
HEADS = dict(
    mask=dict(head=MASK),
    linear=dict(head=LINEAR, auxiliary_head=[dict(LINEAR), PSP]),
    pyramid=dict(head=UPER, neck=NECK, auxiliary_head=dict(UPER, in_index=[1, 2, 3, 0])),
)


def seeded(build, **kwargs):
    torch.manual_seed(0)
    return build(**kwargs)


def images(count=4):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("parts", HEADS.values(), ids=HEADS)
class TestSegmentor:
    def test_widest_stage_is_unchanged(self, parts):
        x = images()
        nested, padded = (seeded(segmentor, nested_head=n, **parts) for n in (True, False))
        expected = padded.think(x, FixedGate(1)).seg_logits
        assert torch.equal(nested.think(x, FixedGate(1)).seg_logits, expected)

    def test_batch_mates(self, parts):
        model, x = segmentor(nested_head=True, **parts), images()
        mixed = model.think(x, RandomGate(0.5, seed=2))
        assert len(mixed.exit_stage.unique()) == 2
        for i, stage in enumerate(mixed.exit_stage.tolist()):
            alone = model.think(x[i : i + 1], FixedGate(stage)).seg_logits
            torch.testing.assert_close(mixed.seg_logits[i : i + 1], alone)

    @pytest.mark.parametrize("nested", [True, False])
    @pytest.mark.parametrize("stage", [0, 1])
    def test_decoder_of_one_stage(self, parts, nested, stage):
        model, x = segmentor(nested_head=nested, **parts), images()
        features = model.backbone.think(x, FixedGate(stage)).features
        decoder = StageDecoder(model, stage)
        found = decoder.upsample(decoder(tuple(features), (32, 32), {}), (32, 32))
        torch.testing.assert_close(found, model.think(x, FixedGate(stage)).seg_logits)

    def test_trains(self, parts):
        model = segmentor(nested_head=True, **parts).train()
        losses = model.loss(*batch())
        sum(x for name, x in losses.items() if "loss" in name).backward()
        assert all(x.grad is not None for x in model.decode_head.parameters())
        result = model.eval().predict(*batch())
        assert result[0].seg_logits.data.shape == (5, 32, 32)

    def test_drop_in(self, parts):
        """mmseg's segmentor gives the same, and trains on drawn stages."""
        x = images()
        gate = dict(type="RandomGate", p=0.5, seed=2)
        ours = seeded(segmentor, gate=gate, nested_head=True, **parts)
        channels = dict(stage_channels=((16,), (32,)))
        narrow = dict(stage_channels=((8,) * 4, (16,) * 4)) if "neck" in parts else channels
        config = dict(type="EncoderDecoder", backbone=dict(VIT, gate=gate))
        config["decode_head"] = dict(type="tvit_seg.NestedHead", head=parts["head"], **narrow)
        if "neck" in parts:
            config["neck"] = dict(type="tvit_seg.NestedHead", head=NECK, **channels)
        model = MODELS.build(dict(config, test_cfg=dict(mode="whole"))).eval()
        weights = {n: w for n, w in ours.state_dict().items() if not n.startswith("auxiliary")}
        model.load_state_dict(weights, strict=True)
        assert set(ours.think(x).exit_stage.tolist()) == {0, 1}
        expected = ours.encode_decode(x)
        metas = [dict(img_shape=(32, 32), ori_shape=(32, 32), pad_shape=(32, 32))] * 4
        torch.testing.assert_close(model.encode_decode(x, metas), expected, atol=1e-4, rtol=1e-4)
        losses = model.train().loss(*batch(4))
        losses["decode.loss_ce"].backward()


def test_pixel_gate_reads_nested_logits():
    model = segmentor(gate=dict(type="PixelEntropyGate", threshold=9.0), nested_head=True)
    thought = model.think(images())
    assert thought.exit_stage.tolist() == [0] * 4
    expected = model.think(images(), FixedGate(0)).seg_logits
    torch.testing.assert_close(thought.seg_logits, expected)


def test_swin():
    model = lively(
        ThinkingEncoderDecoder(
            backbone=dict(
                type="ThinkingSwin", depths=(1,) * 4, num_heads=(1, 2, 4, 8), embed_dims=8,
                thinking_stages=((1, 1, 2, 4), (1, 2, 4, 8)), window_size=2,
            ),
            neck=dict(type="FPN", in_channels=[8, 16, 32, 64], out_channels=16, num_outs=4),
            decode_head=UPER,
            nested_head=True,
            test_cfg=dict(mode="whole"),
        )
    )  # fmt: skip
    assert [plan.widths for plan in model.neck.plans] == [(8, 8, 16, 32), (8, 16, 32, 64)]
    assert model.think(torch.randn(1, 3, 64, 64), FixedGate(0)).seg_logits.any()


def test_weights_of_a_padded_model_and_back(tmp_path):
    kwargs = dict(head=PSP)
    padded, nested = (segmentor(nested_head=n, **kwargs) for n in (False, True))
    with torch.no_grad():
        padded.decode_head.conv_seg.weight.fill_(2)
    torch.save(padded.state_dict(), tmp_path / "padded.pth")
    report = load_pretrained(nested, str(tmp_path / "padded.pth"))
    assert report.missing and all(".stage0." in name for name in report.missing)
    x = images()
    expected = padded.think(x, FixedGate(1)).seg_logits
    assert torch.equal(nested.think(x, FixedGate(1)).seg_logits, expected)
    torch.save(nested.state_dict(), tmp_path / "nested.pth")
    back = segmentor(nested_head=False, **kwargs)
    report = load_pretrained(back, str(tmp_path / "nested.pth"))
    assert not report.missing
    assert all(".stage0." in name for name in report.dropped)
    assert torch.equal(back.think(x, FixedGate(1)).seg_logits, expected)


@pytest.mark.parametrize(("channels", "fits"), [(((16,), (32,)), True), (((8,), (32,)), False)])
def test_drop_in_of_other_widths(channels, fits):
    head = dict(type="NestedHead", head=LINEAR, stage_channels=channels)
    model = MODELS.build(dict(type="EncoderDecoder", backbone=VIT, decode_head=head))
    if fits:
        check_heads(model)
    else:
        with pytest.raises(ConfigError, match="stage_channels"):
            check_heads(model)


class TestHeadThatCannot:
    def test_true_names_the_layer(self):
        with pytest.raises(ConfigError, match="GCHead cannot be nested, at gc_block"):
            segmentor(head=UNFIT, nested_head=True)

    def test_auto_warns_and_pads(self):
        with pytest.warns(UserWarning, match="GCHead .* full width"):
            model = segmentor(head=LINEAR, auxiliary_head=UNFIT, nested_head="auto")
        assert isinstance(model.decode_head, Nested)
        assert not isinstance(model.auxiliary_head, Nested)

    def test_heads_behind_a_neck_that_pads(self):
        with pytest.warns(UserWarning, match="FPN .* full width"):
            norm = dict(type="GN", num_groups=3)
            neck = dict(type="FPN", in_channels=[32], out_channels=24, num_outs=4, norm_cfg=norm)
            head = dict(UPER, in_channels=[24] * 4)
            model = segmentor(head=head, neck=neck, nested_head="auto")
        assert not isinstance(model.decode_head, Nested)
        assert model.think(images(), FixedGate(0)).seg_logits.shape == (4, 5, 32, 32)

    def test_option(self):
        with pytest.raises(ConfigError, match="nested_head"):
            segmentor(nested_head="yes")


@pytest.mark.parametrize("count", [stage_macs, stage_parameters])
def test_costs_less(count):
    less, more = (count(segmentor(head=MASK, nested_head=n), (32, 32)) for n in (True, False))
    assert less[0] < more[0]
    assert less[1] == more[1]


def test_cost_of_segmenters_mask_head():
    """3H-6H at 512 pixels, 150 classes: the head falls from 6.65 to 2.21 GMACs."""
    model = ThinkingEncoderDecoder(
        backbone=dict(type="ThinkingViT", img_size=512, num_layers=1, thinking_stages=(3, 6)),
        decode_head=dict(
            MASK, in_channels=384, embed_dims=384, channels=384, num_heads=6, num_layers=2,
            num_classes=150,
        ),
        nested_head=True,
    )  # fmt: skip
    pairs = zip(stage_macs(model, (512, 512)), stage_macs(model.backbone, (512, 512)), strict=True)
    assert [round((both - backbone) / 1e9, 2) for both, backbone in pairs] == [2.21, 6.65]


@pytest.mark.integration
def test_cost_of_upernet_behind_swin_s():
    model = ThinkingEncoderDecoder(
        backbone=dict(type="ThinkingSwin", embed_dims=96, depths=(2, 2, 18, 2)),
        decode_head=dict(
            UPER, in_channels=[96, 192, 384, 768], channels=512, num_classes=150
        ),
        nested_head=True,
    )  # fmt: skip
    narrow, wide = stage_macs(model, (512, 512))
    assert narrow / wide < 0.28


@torch.no_grad()
def test_traces_at_a_narrow_stage():
    """torch.jit cannot follow a head at another width; torch.export can."""
    model = segmentor(dict(type="FixedGate", stage=0), head=LINEAR, nested_head=True)
    model.forward = model.encode_decode
    x = images()
    with pytest.raises(ExportError, match=r"stage 0: use torch\.export"):
        torch.jit.trace(model, x)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))
    model.backbone.set_gate(None)
    torch.testing.assert_close(torch.jit.trace(model, x)(x), model(x))
