"""Whole exports of tiny models, through every format."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.builders import SLIDE, segmentor
from helpers.deployment import CFG, GATE, needs_onnx, pictures

from tvit_seg import FixedGate
from tvit_seg.deploy import ThinkingHost, export
from tvit_seg.deploy import host as host_file
from tvit_seg.deploy.pt2_file import Pt2Host
from tvit_seg.deploy.quantize import quantize
from tvit_seg.errors import ExportError

SMALL = dict(num_layers=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A model for any size, and the folder with its ONNX graphs."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("onnx")
    model = segmentor(GATE, backbone=SMALL, test_cfg=SLIDE)
    export(model, CFG, folder, pictures(), any_size=True)
    return model, folder


@needs_onnx
def test_manifest(written):
    _, folder = written
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["stages"] == ["stage0.onnx", "stage1.onnx"]
    assert manifest["decode"] == "decode.onnx"
    assert manifest["gate"]["threshold"] == 1.0
    assert (manifest["size"], manifest["size_divisor"]) == (None, 8)
    assert manifest["slide"] == dict(crop_size=[32, 32], stride=[24, 24])
    assert manifest["thinking_stages"] == [2, 4]
    assert 0 < manifest["gmacs"][0] < manifest["gmacs"][1]
    assert len(manifest["classes"]) == len(manifest["palette"]) == 7
    assert manifest["largest_difference"] < 1e-3


@needs_onnx
def test_axes_are_open(written):
    import onnx

    _, folder = written
    graph = onnx.load(folder / "stage0.onnx").graph
    dims = graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, "height", "width"]
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    later = onnx.load(folder / "stage1.onnx").graph
    assert [node.name for node in later.input] == ["embedding", "tokens_0", "images"]


@needs_onnx
@torch.no_grad()
def test_the_host_segments_as_the_model(written):
    model, folder = written
    host = ThinkingHost(folder, threads=1)
    images = pictures(2, (50, 70))
    inputs = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2)).float()
    entropy = model.predict(inputs)[0].gate_entropy[:, 0]
    host.threshold = model.backbone.gate.threshold = float(entropy.median()) + 1e-6
    stages = []
    for sample, result in zip(model.predict(inputs), host(images), strict=True):
        assert (result.labels == sample.pred_sem_seg.data[0].numpy()).mean() > 0.999
        assert result.exit_stage.tolist() == sample.exit_stage.tolist()
        stages += result.exit_stage.tolist()
    assert set(stages) == {0, 1}


@needs_onnx
def test_the_host_needs_numpy_and_onnxruntime_alone(written, tmp_path):
    _, folder = written
    (tmp_path / "service.py").write_text(Path(host_file.__file__).read_text())
    np.save(tmp_path / "picture.npy", pictures(1)[0])
    code = (
        "import sys; sys.modules.update(torch=None, tvit_seg=None, cv2=None, onnx=None)\n"
        "import numpy as np, service\n"
        f"result = service.ThinkingHost({str(folder)!r}, threads=1)([np.load('picture.npy')])[0]\n"
        "print(*result.labels.shape)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["32", "48"]


@needs_onnx
def test_int8(written, tmp_path):
    _, folder = written
    quantize(folder, tmp_path)
    plain, small = ThinkingHost(folder, threads=1), ThinkingHost(tmp_path, threads=1)
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    for host in (plain, small):
        host.threshold = 0.0
    a, b = (host.think(images)["seg_logits"] for host in (plain, small))
    assert 0 < np.abs(a - b).max() < 0.5
    sizes = [(where / "stage1.onnx").stat().st_size for where in (folder, tmp_path)]
    assert sizes[1] < sizes[0]
    assert small.manifest.pop("weights") == "int8"
    assert plain.manifest.keys() - small.manifest.keys() == {"largest_difference", "checked_images"}


@pytest.mark.parametrize("stage", [None, 0])
def test_torch_export(tmp_path, stage):
    model = segmentor(GATE, backbone=SMALL)
    manifest = export(model, CFG, tmp_path, pictures(), stage=stage, format="pt2")
    assert manifest["size"] == [32, 48]
    images = torch.randn(3, 3, 32, 48)
    with torch.no_grad():
        gate = None if stage is None else FixedGate(stage)
        wanted = model.think(images, gate)
    found = Pt2Host(tmp_path).think(images.numpy())
    np.testing.assert_allclose(found["seg_logits"], wanted.seg_logits, atol=1e-5)
    assert found["exit_stage"].tolist() == wanted.exit_stage.tolist()
    with pytest.raises(ExportError, match="made of ONNX graphs, not of pt2"):
        quantize(tmp_path, tmp_path / "int8")


@pytest.mark.parametrize(
    ("gate", "options", "message"),
    [
        (dict(type="RandomGate", p=0.5), {}, "RandomGate decides in Python"),
        (dict(type="BudgetGate", gate=GATE, think_shares=0.5), {}, "BudgetGate decides in Python"),
        (GATE, dict(stage=2), r"stage=2 must lie in \[0, 1\]"),
        (GATE, dict(format="trt"), "format='trt' must be one of onnx, pt2"),
    ],
)
def test_refusals(tmp_path, gate, options, message):
    with pytest.raises(ExportError, match=message):
        export(segmentor(gate), CFG, tmp_path / "out", pictures(), **options)
    assert not (tmp_path / "out").exists()


def test_no_size_but_one(tmp_path):
    pruning = dict(type="DynamicPruning", locations=(1,), keep_ratio=0.7)
    model = segmentor(GATE, backbone=dict(pruning=pruning))
    with pytest.raises(ExportError, match="any size are not possible: DynamicPruning keeps"):
        export(model, CFG, tmp_path, pictures(), any_size=True, format="pt2")


def test_an_old_torch(tmp_path, monkeypatch):
    monkeypatch.setattr("tvit_seg.utils.versions._installed", lambda name: "2.8.0")
    with pytest.raises(ExportError, match=r"ONNX: torch 2\.8\.0 is .* torch>=2\.13 works.*pt2"):
        export(segmentor(GATE), CFG, tmp_path, pictures())


def test_missing_packages(tmp_path, monkeypatch):
    monkeypatch.setattr("tvit_seg.deploy.onnx_file.find_spec", lambda name: None)
    with pytest.raises(ExportError, match="pip install onnx onnxscript onnxruntime"):
        export(segmentor(GATE), CFG, tmp_path, pictures())
