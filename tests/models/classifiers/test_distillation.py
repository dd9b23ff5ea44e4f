"""Soft targets of a frozen teacher for every stage."""

import pytest
import torch
import torch.nn.functional as F
from helpers.builders import class_samples, classifier
from helpers.contracts import close
from torch import nn

from tvit_seg.errors import ConfigError
from tvit_seg.models.classifiers.distillation import Distillation

TOKENS = dict(pool="pool", classifier="fc")


class TinyTeacher(nn.Module):
    """A convolution, global average pooling and a classifier; dropout in training mode."""

    def __init__(self, num_classes=5):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 8, stride=8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.9)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.fc(self.drop(self.pool(self.conv(x)).flatten(1)))


def distill(**options):
    return dict(teacher=dict(type=TinyTeacher), size=(16, 16), **options)


def student(**options):
    return classifier(distill=distill(**options), data_preprocessor=dict()).train()


def test_losses_are_divergences_at_a_temperature():
    model = student(weight=3.0, temperature=2.0)
    model.backbone.loss_weights = [0.25, 0.75]
    images, samples = torch.randn(4, 3, 32, 32), class_samples([0, 1, 2, 3])
    losses = model.loss(images, samples)
    pixels = images * model.data_preprocessor.std + model.data_preprocessor.mean
    small = F.interpolate(pixels, (16, 16), mode="bilinear", antialias=True)
    target = model.distill.teacher((small - model.distill.mean) / model.distill.std)
    for output in model.backbone.forward_stages(images):
        share = [0.25, 0.75][output.stage]
        expected = F.kl_div(
            (output.logits / 2).log_softmax(-1), (target / 2).softmax(-1), reduction="batchmean"
        )
        close(losses[f"stage{output.stage}.loss_distill"], share * 3 * 4 * expected)
    assert {"stage0.loss", "stage1.loss"} < losses.keys()


@pytest.mark.parametrize("preprocessor", [None, dict(type="mmengine.ImgDataPreprocessor")])
def test_pixels_need_a_mean(preprocessor):
    with pytest.raises(ConfigError, match="data_preprocessor must be one with mean and std"):
        classifier(distill=distill(), data_preprocessor=preprocessor)


def test_labels_of_other_classes_are_not_read():
    model = student(label_weight=0.0)
    losses = model.loss(torch.randn(2, 3, 32, 32), class_samples([99, -1]))
    assert set(losses) == {"stage0.loss_distill", "stage1.loss_distill"}


def test_tokens_learn_from_the_map_before_pooling():
    model = student(label_weight=0.0, tokens=TOKENS)
    images = torch.randn(2, 3, 32, 32)
    losses = model.loss(images, class_samples([0, 0]))
    assert {"stage0.loss_tokens", "stage1.loss_tokens"} < losses.keys()
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    logits, maps = model.distill._predict(255 * torch.rand(2, 3, 32, 32))
    close(maps.mean((2, 3)), logits)


def test_teacher_stays_as_it_was():
    model = student(tokens=TOKENS)
    teacher = model.distill.teacher
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any("distill" in name for name in model.state_dict())
    assert not any("distill" in name for name, _ in model.named_parameters())


def test_teacher_by_timm_and_torchvision_names():
    for config in (
        dict(type="timm.create_model", model_name="test_resnet", num_classes=5),
        dict(type="torchvision.models.mobilenet_v3_small", num_classes=5),
    ):
        loss = Distillation(config, size=(32, 32))
        assert loss._predict(torch.zeros(1, 3, 64, 64))[0].shape == (1, 5)
    timm_model = Distillation(dict(type="timm.create_model", model_name="test_vit"))
    assert timm_model.size == (160, 160)
    close(timm_model.mean.flatten(), torch.full((3,), 127.5))


def test_mistakes():
    with pytest.raises(ConfigError, match="num_classes"):
        model = classifier(
            distill=distill(), data_preprocessor=dict(), backbone=dict(num_classes=7)
        )
        model.train().loss(torch.randn(2, 3, 32, 32), class_samples([0, 0]))
    with pytest.raises(ConfigError, match="temperature"):
        student(temperature=0.0)
    with pytest.raises(ConfigError, match="tokens pool"):
        student(tokens=dict(pool="avgpool", classifier="fc"))
