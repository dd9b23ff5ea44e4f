"""Anybody's weights into a model, from files."""

import logging

import pytest
import timm
import torch
from helpers.builders import LINEAR, classifier, segmentor
from helpers.contracts import close
from safetensors.torch import save_file
from test_convert_state_dict import build, timm_weights
from torch import nn

from tvit_seg.errors import CheckpointError
from tvit_seg.weights.load import check_compatible, load_pretrained, load_weights


def test_init_cfg_loads_a_file_and_reports(tmp_path, caplog):
    path = tmp_path / "deit.pth"
    torch.save({"model": timm_weights(32, 2, classes=1000)}, path)
    backbone = build(init_cfg=dict(type="Pretrained", checkpoint=str(path)))
    with caplog.at_level(logging.INFO):
        backbone.init_weights()
    assert torch.equal(backbone.cls_token[..., :32], timm_loaded(path)["cls_token"])
    report = load_pretrained(backbone, str(path))
    text = str(report)
    for part in ("timm ViT weights", "partial: ", "missing: ", "head.weight (1000 classes"):
        assert part in text


def timm_loaded(path):
    return torch.load(path, weights_only=True)["model"]


def test_safetensors(tmp_path):
    path = tmp_path / "vit.safetensors"
    save_file(timm_weights(), path)
    assert load_pretrained(build(), str(path)).source == "timm ViT weights"


def test_other_architectures_are_refused(tmp_path):
    path = tmp_path / "resnet.pth"
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), path)
    with pytest.raises(
        CheckpointError, match=r"resnet\.pth: .*unknown kind.*conv1.weight"
    ) as caught:
        load_pretrained(build(), str(path))
    for family in (
        "encoder._thinking_*",
        "alpha.N or proj_layer*.weight",
        "blocks.N.attn.qkv.weight",
    ):
        assert f"({family})" in str(caught.value)


def test_less_than_half_is_refused(tmp_path):
    path = tmp_path / "shallow.pth"
    torch.save(timm_weights(), path)
    with pytest.raises(CheckpointError, match=r"fits 32 of the model's 119 .*less than half"):
        load_pretrained(build(num_layers=9), str(path))


@pytest.mark.parametrize(("ema", "which"), [(None, "averaged"), (True, "averaged"), (False, "raw")])
def test_from_pretraining_to_segmentation(tmp_path, monkeypatch, ema, which):
    """A checkpoint of a classifier's training with moving averages starts a segmentor."""
    source = classifier()
    raw = {f"module.{name}": value + 1 for name, value in source.state_dict().items()}
    checkpoint = dict(state_dict=source.state_dict(), ema_state_dict=raw, meta={}, optimizer={})
    torch.save(checkpoint, tmp_path / "epoch_300.pth")
    cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "epoch_300.pth"), ema=ema)
    gate = dict(type="FixedGate", stage=-1)
    said = []
    monkeypatch.setattr("tvit_seg.weights.load.print_log", lambda text, **kwargs: said.append(text))
    for classes, kept in ((5, True), (7, False)):
        backbone = dict(img_size=(48, 64), num_classes=classes, init_cfg=cfg)
        model = segmentor(gate, head=dict(LINEAR, num_classes=classes), backbone=backbone)
        before = model.backbone.head.weight.clone()
        model.init_weights()
        expected = source.backbone.blocks[1].mlp.fc1.weight + (which == "raw")
        close(model.backbone.blocks[1].mlp.fc1.weight, expected)
        assert model.backbone.pos_embed.shape == (1, 1 + 6 * 8, 32)
        head = source.backbone.head.weight + (which == "raw")
        close(model.backbone.head.weight, head if kept else before)
        text = said.pop()
        assert f"recognised as our weights ({which})" in text
        assert "resized: pos_embed" in text
        assert ("head.weight (5 classes, the model has 7)" in text) != kept


@pytest.mark.parametrize("channels", [1, 6])
def test_other_image_channels(channels):
    """As in timm: the response to a grey image stays."""
    weights = timm_weights()
    backbone = build(in_channels=channels)
    report = load_weights(backbone, weights, "weights")
    assert report.resized == ["patch_embed.proj.weight"]
    before = weights["patch_embed.proj.weight"].sum(dim=1)
    close(backbone.patch_embed.proj.weight.detach().sum(dim=1), before)


def test_only_three_channels_become_others():
    weights = timm_weights(in_chans=5)
    with pytest.raises(CheckpointError, match="5 image channels cannot be made one of 3"):
        load_weights(build(), weights, "weights")


def test_check_compatible():
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 3))
    own = model.state_dict()
    check_compatible(model, own, "w.pth")
    other_head = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 5)).state_dict()
    check_compatible(model, other_head, "w.pth")

    wrong = {"0.weight": torch.zeros(9, 10), "0.bias": own["0.bias"], "blocks.0": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        check_compatible(model, wrong, "w.pth")
    text = str(caught.value)
    assert "w.pth is of another model: 10 of 143 parameters match" in text
    assert "missing: 1.weight, 1.bias" in text
    assert "unexpected: blocks.0" in text
    assert "0.weight (9, 10) instead of (10, 10)" in text
