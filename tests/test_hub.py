"""Models saved as folders come back as they were, and strangers' folders run no code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.builders import MASK, SLIDE, classifier, segmentor
from safetensors.torch import load_file, save_file

import tvit_seg
from tvit_seg.errors import CheckpointError, ConfigError

SHARED = Path(__file__).parents[2] / "shared/reference"
SWIN = dict(
    embed_dims=32, depths=(2, 2), num_heads=(2, 4), thinking_stages=((1, 2), (2, 4)), num_classes=3
)


def models():
    yield "linear", segmentor(gate=dict(type="EntropyGate", threshold=0.7))
    yield "mask", segmentor(head=MASK, nested_head=True)
    yield "pixels", segmentor(gate=dict(type="PixelEntropyGate", threshold=0.4))
    yield "pruned", segmentor(backbone=dict(pruning=dict(type="DynamicPruning", locations=(1,))))
    yield "classifier", classifier(gate=dict(type="EntropyGate", threshold=0.7, topk=3))
    yield (
        "vit",
        tvit_seg.ThinkingViT(img_size=32, embed_dims=64, num_heads=2, thinking_stages=(1, 2)),
    )
    yield "swin", tvit_seg.ThinkingSwin(**SWIN)
    budget = dict(type="BudgetGate", think_shares=0.5, gate=dict(type="EntropyGate", threshold=1.0))
    yield "budget", segmentor(gate=budget)


@pytest.mark.parametrize(("name", "model"), models(), ids=lambda x: x if isinstance(x, str) else "")
def test_round_trip(name, model, tmp_path):
    model.metadata = dict(dataset_meta=dict(classes=["a", "b", "c", "d", "e"]))
    model.save_pretrained(tmp_path)
    found = tvit_seg.from_pretrained(tmp_path)
    assert type(found) is type(model)
    assert not found.training
    expected, weights = model.state_dict(), found.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert found.metadata == model.metadata
    gates = [getattr(m, "backbone", m).gate for m in (model, found)]
    assert repr(gates[0]) == repr(gates[1])
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        thoughts = [
            m.eval().think(images) if hasattr(m, "think") else m(images) for m in (model, found)
        ]
    assert torch.equal(thoughts[0].exit_stage, thoughts[1].exit_stage)
    card = (tmp_path / "README.md").read_text()
    assert "tvit_seg.from_pretrained" in card
    assert "a, b, c" in card
    found.save_pretrained(tmp_path / "again")  # a loaded model can be saved
    assert (tmp_path / "again/config.json").read_text() == (tmp_path / "config.json").read_text()


def test_the_present_threshold_and_precision_are_saved(tmp_path):
    model = segmentor(gate=dict(type="EntropyGate", threshold=0.7)).half()
    model.backbone.gate.threshold = 0.25
    model.save_pretrained(tmp_path)
    found = tvit_seg.from_pretrained(tmp_path)
    assert found.backbone.gate.threshold == 0.25
    assert {p.dtype for p in found.parameters()} == {torch.half}


def test_the_present_pruning_and_test_cfg_are_saved(tmp_path):
    model = segmentor(gate=dict(type="PixelEntropyGate", threshold=1.0, resolution="token"))
    uncertain = dict(type="UncertaintyPruning", keep_ratio=0.5, measure="margin")
    model.backbone.set_pruning(uncertain, has_decode_head=True)
    model.backbone.pruning.keep_ratio = 0.25
    model.test_cfg = dict(SLIDE)
    model.save_pretrained(tmp_path)
    found = tvit_seg.from_pretrained(tmp_path)
    assert repr(found.backbone.pruning) == repr(model.backbone.pruning)
    images = torch.randn(1, 3, 40, 60)
    expected, result = (m.predict(images)[0] for m in (model, found))
    assert torch.equal(result.seg_logits.data, expected.seg_logits.data)
    assert result.gmacs == expected.gmacs
    found.backbone.set_pruning(None)
    found.save_pretrained(tmp_path)
    assert tvit_seg.from_pretrained(tmp_path).backbone.pruning is None


def test_a_card_has_costs_and_results(tmp_path):
    details = dict(license="cc-by-nc-4.0", data="Scenes", costs=[1.5, 6.0])
    rows = [dict(threshold=0.0, mIoU=40.0), dict(threshold=0.5, mIoU=39.0)]
    segmentor().save_pretrained(tmp_path, model_card_kwargs=dict(details, results=rows))
    card = (tmp_path / "README.md").read_text()
    for part in ("license: cc-by-nc-4.0", "Scenes", "| 0.5 | 39 |", "| 1 | 6 |"):
        assert part in card


def test_a_class_loads_only_its_own(tmp_path):
    segmentor().save_pretrained(tmp_path)
    assert tvit_seg.ThinkingEncoderDecoder.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="ThinkingClassifier"):
        tvit_seg.ThinkingClassifier.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("model", "type"), "tests.Anything", "config.model.type"),
        (("model", "type"), "NoSuchModel", "config.model.type"),
        (("model", "decode_head", "type"), "pathlib.Path", "decode_head.type"),
        (("model", "decode_head", "type"), "mmseg.FCNHead", "decode_head.type"),
        (("model", "decode_head", "loss_decode"), [dict(type="a.b")], r"loss_decode\[0\].type"),
        (("model", "backbone", "gate"), dict(type="no.gate", threshold=1), "gate.type"),
        (("model", "backbone", "pretrained"), "weights.pth", "backbone.pretrained"),
        (("metadata", "pipeline"), [dict(type="no.Step")], r"pipeline\[0\].type"),
    ],
)
def test_configs_that_name_more_than_registered_classes(tmp_path, path, value, named):
    segmentor().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=named):
        tvit_seg.from_pretrained(tmp_path)


def test_an_argument_that_is_no_plain_data_is_named(tmp_path):
    model = segmentor()
    model.metadata = dict(pipeline=[torch.zeros(1)])
    with pytest.raises(ConfigError, match="pipeline"):
        model.save_pretrained(tmp_path)


def test_folders_of_something_else(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        tvit_seg.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(dict(architecture="resnet50")))
    with pytest.raises(CheckpointError, match="resnet50"):
        tvit_seg.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="JSON"):
        tvit_seg.from_pretrained(tmp_path)


def test_weights_of_another_model(tmp_path):
    segmentor().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop(next(iter(weights)))
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="another model"):
        tvit_seg.from_pretrained(tmp_path)


def test_a_repository_without_network_says_how_to_download(monkeypatch):
    name = "someone/thinkingvit"
    with pytest.raises(CheckpointError, match=f"hf download {name}"):
        tvit_seg.from_pretrained(name, local_files_only=True)


@pytest.mark.parametrize(
    ("file", "architecture", "arguments", "slicing"),
    [
        ("thinkingvit_1h-2h.npz", "thinkingvit", dict(thinking_stages=[1, 2]), None),
        (
            "thinkingswin.npz",
            "swin_small_patch4_window7_224",
            dict(head_rounds=[[2, 2], [2, 4]]),
            "leading",
        ),
    ],
)
def test_the_authors_folders(tmp_path, file, architecture, arguments, slicing):
    if not SHARED.is_dir():
        pytest.skip("the reference tensors are not there")
    arrays = np.load(SHARED / file)
    names = [name for name in arrays.files if name.startswith("param/")]
    weights = {n.removeprefix("param/"): torch.from_numpy(arrays[n]).float() for n in names}
    save_file(weights, tmp_path / "model.safetensors")
    config = dict(architecture=architecture, num_classes=20, model_args=arguments)
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = tvit_seg.from_pretrained(tmp_path)
    assert getattr(model, "slicing", None) == slicing
    with torch.no_grad():
        outputs = model.forward_stages(torch.from_numpy(arrays["x"]).float())
    for stage, output in enumerate(outputs):
        expected = torch.from_numpy(arrays[f"logits{stage}"]).float()
        assert (output.logits - expected).abs().max() < 1e-4


def test_a_predictor_needs_a_segmentor_with_its_pipeline(tmp_path):
    segmentor().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="pipeline"):
        tvit_seg.Predictor.from_pretrained(tmp_path)
