"""Weights-only files that say where they come from."""

import hashlib

import pytest
import torch
from helpers.builders import VIT, segmentor
from helpers.classification import config, image_folder
from helpers.sources import swin

from tvit_seg.engine import ThinkingRunner
from tvit_seg.weights.io import read_checkpoint
from tvit_seg.weights.publish import read_source, record_backbone, write_release


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runner of a training with moving averages, and its checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    root = image_folder(folder / "images")
    hooks = [dict(type="EMAHook", momentum=1e-6)]
    runner = ThinkingRunner.from_cfg(config(root, folder, custom_hooks=hooks))
    runner.train()
    return runner, folder / "epoch_2.pth"


@pytest.mark.integration
def test_a_training_of_ours(trained):
    runner, path = trained
    raw, record = read_source(path, ema=False)
    for name, value in runner.model.state_dict().items():
        assert torch.equal(raw[name], value), name
    average, _ = read_source(path)
    name = "backbone.head.weight"
    assert not torch.equal(average[name], raw[name])
    assert record["source"]["kind"] == "our weights"
    assert record["source"]["weights"] == "raw"
    assert record["recipe"]["epoch"] == 2
    assert record["recipe"]["iter"] == 6
    assert "ThinkingClassifier" in record["recipe"]["cfg"]
    backbone = runner.model.backbone
    heads = record["backbone"]["num_heads"]
    assert record["backbone"]["embed_dims"] // heads == backbone.blocks[0].attn.head_dim
    assert record["backbone"]["thinking_stages"] == backbone.thinking_stages


@pytest.mark.integration
@pytest.mark.parametrize("name", ["release.pth", "release.safetensors"])
def test_a_release_loads_everywhere(trained, tmp_path, name):
    runner, path = trained
    weights, record = read_source(path)
    write_release(weights, tmp_path / name, **record)
    found = read_checkpoint(tmp_path / name)
    assert set(found) == {"meta", "state_dict"}
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["meta"]["source"]["sha256"] == checksum
    runner.load_checkpoint(str(tmp_path / name))
    again, _ = read_source(tmp_path / name)
    for key, value in weights.items():
        assert torch.equal(again[key], value)


def test_what_weights_do_not_tell():
    assert record_backbone(segmentor()) == dict(
        embed_dims=32,
        thinking_stages=(2, 4),
        num_heads=VIT["num_heads"],
        img_size=(32, 32),
        patch_size=8,
    )
    assert record_backbone(swin(slicing="leading")) == dict(
        embed_dims=16,
        thinking_stages=((1, 2, 4), (2, 4, 8)),
        patch_size=4,
        slicing="leading",
    )
    assert record_backbone(torch.nn.Linear(1, 1)) == {}


def test_a_recorded_backbone_is_read_again(tmp_path):
    weights = {"blocks.0.attn.qkv.weight": torch.zeros(6, 2)}
    path = tmp_path / "w.safetensors"
    write_release(weights, path)
    assert "backbone" not in read_source(path)[1]
    write_release(weights, path, backbone=dict(thinking_stages=((1, 2), (2, 4))))
    assert read_source(path)[1]["backbone"] == dict(thinking_stages=[[1, 2], [2, 4]])
