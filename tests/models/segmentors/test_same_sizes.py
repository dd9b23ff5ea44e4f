"""Batches of several sizes give what each image gives alone."""

import copy

import pytest
import torch
from helpers.builders import LINEAR, VIT, samples, segmentor
from mmengine import ConfigDict
from mmseg.registry import MODELS

from tvit_seg.engine import ThinkingRunner
from tvit_seg.errors import ConfigError
from tvit_seg.models.segmentors.same_sizes import same_sizes

SIZES = [(32, 32), (20, 44), (20, 44), (9, 30), (32, 32)]
PREPROCESSOR = dict(type="SegDataPreProcessor", mean=[0.0] * 3, std=[1.0] * 3)
GATES = [
    dict(type="EntropyGate", threshold=1.5),
    dict(type="BudgetGate", gate=dict(type="EntropyGate", threshold=1.5), think_shares=0.5),
]


def batch_of(images):
    found = [samples(torch.zeros(1, *x.shape[1:], dtype=torch.long))[0] for x in images]
    for sample, x in zip(found, images, strict=True):
        sample.set_metainfo(dict(ori_shape=tuple(x.shape[1:]), img_shape=tuple(x.shape[1:])))
    return dict(inputs=images, data_samples=found)


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate["type"])
@pytest.mark.parametrize("step", ["val_step", "test_step"])
@torch.no_grad()
def test_results_are_those_of_each_image_alone(gate, step):
    model = segmentor(gate, data_preprocessor=PREPROCESSOR).eval()
    images = [torch.randn(3, *size) for size in SIZES]
    together = getattr(model, step)(batch_of(images))
    model.backbone.gate.reset()
    for image, one in zip(images, together, strict=True):
        (alone,) = getattr(model, step)(batch_of([image]))
        assert one.exit_stage == alone.exit_stage
        assert torch.equal(one.pred_sem_seg.data, alone.pred_sem_seg.data)
        assert one.pred_sem_seg.data.shape[1:] == image.shape[1:]


@pytest.mark.parametrize("step", ["val_step", "test_step"])
@torch.no_grad()
def test_segmentors_of_mmseg_in_our_runner(step, tmp_path):
    """mmseg's own would fail, at the first validation."""
    cfg = dict(type="EncoderDecoder", backbone=VIT, decode_head=LINEAR, test_cfg=dict(mode="whole"))
    model = MODELS.build(ConfigDict(cfg, data_preprocessor=PREPROCESSOR))
    runner = ThinkingRunner(model, str(tmp_path), experiment_name=f"any_sizes_{step}")
    model = runner.model.eval()
    images = [torch.randn(3, *size) for size in SIZES]
    for image, one in zip(images, getattr(model, step)(batch_of(images)), strict=True):
        (alone,) = getattr(model, step)(batch_of([image]))
        assert torch.equal(one.seg_logits.data, alone.seg_logits.data)
    copied = copy.deepcopy(model)  # as for moving averages
    copied.decode_head.conv_seg.weight.zero_()
    (changed,) = getattr(copied, step)(batch_of(images[-1:]))
    assert not torch.equal(changed.seg_logits.data, alone.seg_logits.data)


def test_parts_keep_the_order():
    images = [torch.zeros(3, *size) for size in SIZES]
    parts = list(same_sizes(dict(inputs=images, data_samples=list("abcde"), more=None)))
    assert [part["data_samples"] for part in parts] == [["a"], ["b", "c"], ["d"], ["e"]]
    (part,) = same_sizes(dict(inputs=torch.zeros(2, 3, 8, 8), data_samples=None))
    assert part["inputs"].shape == (2, 3, 8, 8)


def test_a_single_class_is_named_in_the_form_that_works():
    with pytest.raises(ConfigError, match="num_classes=2, out_channels=1"):
        segmentor(head={**LINEAR, "num_classes": 1, "out_channels": 1})
