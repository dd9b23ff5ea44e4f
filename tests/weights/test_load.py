"""Anybody's weights into a model, from files."""

import logging
import runpy
import sys
from pathlib import Path

import pytest
import timm
import torch
from helpers.builders import LINEAR, VIT, classifier, segmentor
from helpers.classification import config, image_folder
from helpers.contracts import close
from helpers.sources import swin, timm_swin, timm_vit, vit
from torch import nn

from tvit_seg.engine import ThinkingRunner
from tvit_seg.errors import CheckpointError
from tvit_seg.weights.convert import to_authors
from tvit_seg.weights.load import check_compatible, load_pretrained, load_weights


def test_init_cfg_loads_a_file_and_reports(tmp_path, caplog):
    path = tmp_path / "deit.pth"
    weights = timm_vit(32, 2, num_classes=1000).state_dict()
    torch.save({"model": weights}, path)
    backbone = vit(init_cfg=dict(type="Pretrained", checkpoint=str(path)))
    with caplog.at_level(logging.INFO):
        backbone.init_weights()
    assert torch.equal(backbone.cls_token[..., :32], weights["cls_token"])
    report = load_pretrained(backbone, str(path))
    text = str(report)
    for part in ("timm ViT weights", "partial: ", "missing: ", "head.weight (1000 classes"):
        assert part in text


@pytest.mark.parametrize(
    ("model", "weights"),
    [
        (lambda: vit(num_layers=3), timm_vit),
        (lambda: vit(num_layers=1), timm_vit),
        (lambda: vit(embed_dims=32), timm_swin),
    ],
)
def test_other_networks_are_refused(model, weights):
    with pytest.raises(CheckpointError, match=r"file: weights of another network: "):
        load_weights(model(), weights().state_dict(), "file")


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


@pytest.mark.parametrize(
    ("slicing", "theirs"), [("grouped", True), ("grouped", False), ("leading", False)]
)
def test_the_right_slicing_is_asked_for(slicing, theirs, monkeypatch):
    weights = swin().state_dict()
    meta = dict(backbone=dict(slicing="leading"))
    checkpoint = to_authors(weights) if theirs else dict(meta=meta, state_dict=weights)
    said = []
    monkeypatch.setattr("tvit_seg.weights.load.print_log", lambda text, **_: said.append(text))
    load_weights(swin(slicing=slicing), checkpoint, "file")
    warned = any("needs slicing='leading'" in text for text in said)
    assert warned == (slicing == "grouped")


def from_runner(path, folder):
    root = image_folder(folder / "images")
    runner = ThinkingRunner.from_cfg(config(root, folder, load_from=path))
    runner.load_or_resume()
    return runner.model.backbone


def initialised(model):
    model.init_weights()
    return getattr(model, "backbone", model)


def from_cfg(path, folder):
    return initialised(vit(**SMALL, init_cfg=dict(type="Pretrained", checkpoint=path)))


def from_timm(path, folder):
    return timm.create_model("thinkingvit_3h_6h", checkpoint_path=path, **TIMM)


def from_tool(path, folder):
    target = folder / "out.pth"
    tool = Path(__file__).parents[2] / "tools/convert/import_weights.py"
    argv = [str(part) for part in (tool, path, target, "--head-dim", 8)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        runpy.run_path(str(tool), run_name="__main__")
    return initialised(vit(**SMALL, pretrained=str(target)))


SMALL = {key: VIT[key] for key in ("img_size", "patch_size", "embed_dims", "num_heads")}
SMALL |= dict(thinking_stages=(2, 4), num_classes=3)
TIMM = dict(img_size=32, patch_size=8, embed_dim=32, num_heads=4, depth=2)
TIMM |= dict(thinking_stages=(2, 4), num_classes=3)
DOORS = {
    "load_pretrained": lambda path, folder: loaded(vit(**SMALL), path),
    "init_cfg": from_cfg,
    "pretrained": lambda path, folder: initialised(vit(**SMALL, pretrained=path)),
    "segmentor": lambda path, folder: initialised(segmentor(backbone=dict(pretrained=path))),
    "load_from": from_runner,
    "checkpoint_path": from_timm,
    "import_weights.py": from_tool,
}


def loaded(model, path):
    load_pretrained(model, path)
    return model


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.filterwarnings("ignore")
def test_all_doors_decide_alike(tmp_path, door):
    """Layer scale is folded, a norm before the blocks refused, wherever the file is named."""
    theirs = timm_vit(32, 4, img_size=32, patch_size=8, num_classes=3, init_values=0.5)
    torch.save(theirs.state_dict(), tmp_path / "good.pth")
    torch.save({**theirs.state_dict(), "norm_pre.weight": torch.ones(32)}, tmp_path / "bad.pth")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    backbone = DOORS[door](str(tmp_path / "good.pth"), tmp_path / "a")
    close(backbone.blocks[1].mlp.fc2.weight, theirs.blocks[1].mlp.fc2.weight * 0.5)
    with pytest.raises((CheckpointError, SystemExit), match=r"norm_pre\.\w+ \(norm before"):
        DOORS[door](str(tmp_path / "bad.pth"), tmp_path / "b")


def test_check_compatible():
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 3))
    own = model.state_dict()
    check_compatible(model, own, "w.pth")
    other_head = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 5)).state_dict()
    check_compatible(model, other_head, "w.pth")
    with pytest.raises(CheckpointError, match=r"other sizes.*1.weight \(5, 10\) instead"):
        check_compatible(model, other_head, "w.pth", shapes=True)

    wrong = {"0.weight": torch.zeros(9, 10), "0.bias": own["0.bias"], "blocks.0": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"another model: 1 of 4 parameters") as refused:
        check_compatible(model, wrong, "w.pth")
    text = str(refused.value)
    assert "missing: 1.weight, 1.bias" in text
    assert "unexpected: blocks.0" in text
    assert "0.weight (9, 10) instead of (10, 10)" in text
