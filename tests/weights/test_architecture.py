"""Networks read off their weights."""

import pytest
import torch
from helpers.builders import VIT, classifier, segmentor

from tvit_seg import convert_state_dict
from tvit_seg.errors import CheckpointError
from tvit_seg.registry import MODELS
from tvit_seg.weights.architecture import read_architecture

KEYS = ("img_size", "patch_size", "embed_dims", "num_layers", "num_heads", "num_classes")


@pytest.mark.parametrize("stages", [(4,), (2, 4), (1, 2, 4)])
def test_our_own(stages):
    whole = classifier(backbone=dict(thinking_stages=stages))
    for model in (whole, whole.backbone, segmentor(backbone=dict(thinking_stages=stages))):
        found = read_architecture(model.state_dict(), head_dim=8)
        assert found["thinking_stages"] == stages
        assert {key: found[key] for key in KEYS} == {key: VIT[key] for key in KEYS}
        MODELS.build(found)


@pytest.mark.parametrize("name", ["thinkingvit_1h-2h", "dynamicvit_1h-2h", "segmenter_mask_1h-2h"])
def test_references(reference, name):
    weights = convert_state_dict(reference(name).weights)
    found = read_architecture(weights)
    assert found["thinking_stages"] == (1, 2)
    assert found["embed_dims"] == 128
    assert found["mlp_ratio"] == (2 if name.startswith("dynamic") else 4)
    backbone = MODELS.build(found)
    converted = convert_state_dict(reference(name).weights, backbone)
    assert not converted.report.missing
    assert not converted.report.cropped


def test_stages_of_a_network_that_is_too_wide(reference):
    weights = convert_state_dict(reference("thinkingvit_1h-2h").weights)
    assert read_architecture(weights, thinking_stages=(1, 2))["embed_dims"] == 128
    assert read_architecture(weights, 32)["thinking_stages"] == (2, 4)
    with pytest.raises(CheckpointError, match=r"widths \[128, 192\], but .* from widths \[64\]"):
        read_architecture(weights, thinking_stages=(2, 3))
    with pytest.raises(CheckpointError, match=r"stages of \[64, 192\] channels do not fit"):
        read_architecture(weights, thinking_stages=(1, 3))
    with pytest.raises(CheckpointError, match="heads of 48 channels"):
        read_architecture(weights, 48)


def test_other_weights():
    with pytest.raises(CheckpointError, match=r"not found: patch_embed\.proj\.weight, pos_embed"):
        read_architecture({"a": torch.zeros(1)})
    weights = classifier().backbone.state_dict()
    weights["pos_embed"] = torch.zeros(1, 8, 32)
    with pytest.raises(CheckpointError, match="7 patches is not square"):
        read_architecture(weights, 8)
