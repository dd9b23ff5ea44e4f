"""Small models and data for tests."""

import numpy as np
import torch
from mmengine.structures import BaseDataElement, PixelData
from mmseg.structures import SegDataSample

from tvit_seg import ThinkingClassifier, ThinkingEncoderDecoder

VIT = dict(
    type="ThinkingViT",
    img_size=32,
    patch_size=8,
    embed_dims=32,
    num_layers=2,
    num_heads=4,
    thinking_stages=(2, 4),
    num_classes=5,
)
LINEAR = dict(
    type="FCNHead",
    num_convs=0,
    concat_input=False,
    in_channels=32,
    channels=32,
    num_classes=5,
    dropout_ratio=0,
    loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True),
)
MASK = dict(
    type="SegmenterMaskTransformerHead",
    in_channels=32,
    channels=32,
    embed_dims=32,
    num_layers=1,
    num_heads=2,
    num_classes=5,
    dropout_ratio=0,
    loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True),
)
SLIDE = dict(mode="slide", crop_size=(32, 32), stride=(24, 24))


def segmentor(gate=None, head=LINEAR, test_cfg=dict(mode="whole"), backbone=(), **kwargs):
    """A small segmentor whose recycling does something."""
    model = ThinkingEncoderDecoder(
        backbone=dict(VIT, gate=gate, **dict(backbone)),
        decode_head=head,
        test_cfg=test_cfg,
        **kwargs,
    )
    return lively(model)


def classifier(gate=None, backbone=(), **kwargs):
    """A small classifier whose recycling does something."""
    return lively(ThinkingClassifier({**VIT, "gate": gate, **dict(backbone)}, **kwargs))


def lively(model):
    """The model in eval mode, with recycling that does something."""
    with torch.no_grad():
        for recycle in model.backbone.recycle:
            recycle.scale.fill_(0.7)
    return model.eval()


def class_samples(labels):
    """Data samples of images with these labels."""
    return [BaseDataElement(gt_label=torch.tensor(label)) for label in labels]


def samples(labels):
    """Data samples with label maps (B, H, W)."""
    return [
        SegDataSample(
            gt_sem_seg=PixelData(data=label[None]),
            metainfo=dict(
                ori_shape=label.shape,
                img_shape=label.shape,
                pad_shape=label.shape,
                img_path=f"{i}.png",
            ),
        )
        for i, label in enumerate(labels)
    ]


def batch(count=2, size=(32, 32), classes=5):
    """Images (B, 3, H, W) and data samples with random labels, some ignored."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, classes, (count, *size)))
    labels[:, :3] = 255
    return torch.randn(count, 3, *size), samples(labels)
