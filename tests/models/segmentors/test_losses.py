"""mmseg's losses on the heads of the shipped configs, with and without class weights."""

import pytest
import torch
import torch.nn.functional as F
from helpers.builders import LINEAR, MASK, batch, segmentor
from mmseg.models import build_loss
from torch import nn

from tvit_seg.errors import ConfigError
from tvit_seg.models.segmentors.losses import mend_losses

WEIGHTS = [0.5, 1.0, 2.0, 1.0, 3.0]
UPER = dict(
    type="UPerHead", in_channels=[32], in_index=[0], pool_scales=(1, 2), channels=8, num_classes=5,
    dropout_ratio=0, norm_cfg=dict(type="BN"),
)  # fmt: skip
HEADS = {"linear": LINEAR, "mask": MASK, "UPerNet": UPER}
PLAIN = {
    "cross entropy": dict(type="CrossEntropyLoss"),
    "cross entropy, labelled": dict(type="CrossEntropyLoss", avg_non_ignore=True),
    "sigmoid": dict(type="CrossEntropyLoss", use_sigmoid=True),
    "sigmoid, labelled": dict(type="CrossEntropyLoss", use_sigmoid=True, avg_non_ignore=True),
    "focal": dict(type="FocalLoss"),
    "Lovasz": dict(type="LovaszLoss", reduction="none"),
    "Tversky": dict(type="TverskyLoss"),
}
LOSSES = {
    **PLAIN,
    **{f"{name}, weights": {**loss, "class_weight": WEIGHTS} for name, loss in PLAIN.items()},
    "Dice": dict(type="DiceLoss"),
    "Dice, softmax": dict(type="DiceLoss", use_sigmoid=False),
    "two": [dict(type="CrossEntropyLoss", class_weight=WEIGHTS), dict(type="DiceLoss")],
}


def head(kind, loss, **kwargs):
    return {**HEADS[kind], "loss_decode": loss, **kwargs}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", HEADS)
def test_one_step(kind, name):
    """Gradients of both stages, which ignored pixels do not change."""
    torch.manual_seed(0)
    model = segmentor(head=head(kind, LOSSES[name])).train()
    images, data_samples = batch()
    total, log = model.parse_losses(model.loss(images, data_samples))
    total.backward()
    assert {key.split(".")[0] for key in log if "loss_" in key} == {"stage0", "stage1"}
    for parameter in model.decode_head.parameters():
        assert parameter.grad.isfinite().all()
    assert sum(p.grad.abs().sum() for p in model.decode_head.parameters()) > 0


def mended(loss, channels=5):
    found = build_loss(loss)
    mend_losses(holder(found, channels))
    return found


def holder(loss, channels):
    model = nn.Module()
    model.decode_head = nn.Module()
    model.decode_head.loss_decode, model.decode_head.out_channels = loss, channels
    return model


def pixels(channels=5):
    torch.manual_seed(0)
    logits = torch.randn(2, channels, 6, 7, requires_grad=True)
    labels = torch.randint(0, max(channels, 2), (2, 6, 7))
    labels[:, :2] = 255
    return logits, labels


@pytest.mark.parametrize("average", [True, False])
def test_class_weights_are_those_of_torch(average):
    logits, labels = pixels()
    config = dict(type="CrossEntropyLoss", class_weight=WEIGHTS, avg_non_ignore=average)
    wanted = F.cross_entropy(logits, labels, torch.tensor(WEIGHTS), ignore_index=255)
    torch.testing.assert_close(mended(config)(logits, labels, ignore_index=255), wanted)


def test_weights_of_a_sigmoid_belong_to_classes():
    """Also where the image has as many columns as there are classes."""
    logits, labels = pixels()
    logits, labels = logits[..., :5], labels[..., :5]
    config = dict(type="CrossEntropyLoss", use_sigmoid=True, class_weight=WEIGHTS)
    found = mended({**config, "avg_non_ignore": True})(logits, labels, ignore_index=255)
    valid, scores = labels != 255, logits.movedim(1, -1)
    target = F.one_hot(labels[valid], 5).float()
    weights = torch.tensor(WEIGHTS)
    wanted = F.binary_cross_entropy_with_logits(scores[valid], target, pos_weight=weights)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("kind", ["FocalLoss", "DiceLoss"])
def test_ignored_pixels_have_no_gradient(kind, channels):
    logits, labels = pixels(channels)
    mended(dict(type=kind), channels)(logits, labels, ignore_index=255).backward()
    assert (logits.grad[:, :, :2] == 0).all()
    assert (logits.grad[:, :, 2:] != 0).all()


@pytest.mark.parametrize("kind", ["FocalLoss", "DiceLoss"])
def test_a_single_channel_is_the_foreground(kind):
    labels = torch.tensor([[[0, 1, 255]]])
    right = torch.tensor([[[[-9.0, 9.0, 0.0]]]])
    loss = mended(dict(type=kind), 1)
    assert loss(right, labels) < 0.01 < loss(-right, labels)


@pytest.mark.parametrize("name", LOSSES)
def test_no_label_at_all(name):
    for config in [LOSSES[name]] if isinstance(LOSSES[name], dict) else LOSSES[name]:
        logits, labels = pixels()
        loss = mended(config)(logits, torch.full_like(labels, 255), ignore_index=255).mean()
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.abs().sum() == 0


def test_dice_without_ignored_pixels_is_that_of_mmseg():
    logits, labels = pixels()
    labels[labels == 255] = 0
    for config in (dict(type="DiceLoss"), dict(type="DiceLoss", use_sigmoid=False)):
        wanted = build_loss(config)(logits, labels)
        torch.testing.assert_close(mended(config)(logits, labels), wanted)


@pytest.mark.parametrize(
    ("loss", "channels", "message"),
    [
        (dict(type="CrossEntropyLoss", class_weight=[1, 2]), 5, "class_weight must be .*5 numbers"),
        (dict(type="OhemCrossEntropy"), 5, "loss_decode must be a loss whose forward takes"),
        (dict(type="HuasdorffDisstanceLoss", class_weight=[1, 2]), 2, "class_weight must be None"),
        (dict(type="HuasdorffDisstanceLoss"), 5, "channels for .*HuasdorffDisstanceLoss must be 2"),
        (dict(type="TverskyLoss"), 1, "must be a loss with a sigmoid"),
    ],
)
def test_losses_that_do_not_fit(loss, channels, message):
    with pytest.raises(ConfigError, match=message):
        mended(loss, channels)
