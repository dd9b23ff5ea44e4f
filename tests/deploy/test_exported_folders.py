"""Whole exports of tiny models, written and read in each format."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.builders import MASK, SLIDE, segmentor
from helpers.deployment import CFG, FCN, GATE, PRUNING, SMALL, SWIN, TOKENS, needs_onnx, noise, swin
from helpers.todays import KINDS
from mmengine.config import Config
from mmseg.registry import MODELS

from tvit_seg import FixedGate, stage_macs
from tvit_seg.deploy import FORMATS, ThinkingHost, export
from tvit_seg.deploy import host as host_file
from tvit_seg.deploy.formats import WRITERS, quantize
from tvit_seg.errors import ConfigError, ExportError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A model for any size, and the folder with its ONNX graphs."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("onnx")
    model = segmentor(GATE, backbone=SMALL, test_cfg=SLIDE)
    export(model, CFG, folder, noise(), any_size=True)
    return model, folder


@needs_onnx
@pytest.mark.integration
class TestOnnx:
    def test_manifest(self, written):
        manifest = json.loads((written[1] / "manifest.json").read_text())
        assert manifest["stages"] == ["stage0.onnx", "stage1.onnx"]
        assert manifest["decode"] == "decode.onnx"
        assert manifest["gate"]["threshold"] == 1.0
        assert (manifest["size"], manifest["size_divisor"]) == (None, 8)
        assert manifest["slide"] == dict(crop_size=[32, 32], stride=[24, 24])
        assert manifest["thinking_stages"] == [2, 4]
        assert 0 < manifest["gmacs"][0] < manifest["gmacs"][1]
        assert len(manifest["classes"]) == len(manifest["palette"]) == 7
        assert manifest["largest_difference"] < 1e-3

    def test_axes_are_open(self, written):
        import onnx

        graph = onnx.load(written[1] / "stage0.onnx").graph
        dims = graph.input[0].type.tensor_type.shape.dim
        assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, "height", "width"]
        assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
        later = onnx.load(written[1] / "stage1.onnx").graph
        assert [node.name for node in later.input] == ["embedding", "tokens_0", "images"]

    @torch.no_grad()
    def test_the_host_segments_as_the_model(self, written):
        model, folder = written
        host = ThinkingHost(folder, threads=1)
        images = noise(2, (50, 70))
        inputs = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2)).float()
        entropy = model.predict(inputs)[0].gate_entropy[:, 0]
        host.threshold = model.backbone.gate.threshold = float(entropy.median()) + 1e-6
        stages = []
        for sample, result in zip(model.predict(inputs), host(images), strict=True):
            assert (result.labels == sample.pred_sem_seg.data[0].numpy()).mean() > 0.999
            assert result.exit_stage.tolist() == sample.exit_stage.tolist()
            stages += result.exit_stage.tolist()
        assert set(stages) == {0, 1}

    def test_a_copy_of_the_host_needs_numpy_and_onnxruntime_alone(self, written, tmp_path):
        (tmp_path / "service.py").write_text(Path(host_file.__file__).read_text())
        np.save(tmp_path / "image.npy", noise(1)[0])
        code = (
            "import sys; sys.modules.update(torch=None, tvit_seg=None, cv2=None, onnx=None)\n"
            "import numpy as np, service\n"
            f"host = service.ThinkingHost({str(written[1])!r}, threads=1)\n"
            "print(*host([np.load('image.npy')])[0].labels.shape)"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        assert done.stdout.split() == ["32", "48"]

    def test_int8(self, written, tmp_path):
        quantize(written[1], tmp_path)
        plain, small = (ThinkingHost(folder, threads=1) for folder in (written[1], tmp_path))
        images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
        plain.threshold = small.threshold = 0.0
        a, b = (host.think(images)["seg_logits"] for host in (plain, small))
        assert 0 < np.abs(a - b).max() < 0.5
        sizes = [(where / "stage1.onnx").stat().st_size for where in (written[1], tmp_path)]
        assert sizes[1] < sizes[0]
        assert small.manifest["weights"] == "int8"
        assert "largest_difference" not in small.manifest

    def test_int8_does_not_depend_on_batch_mates(self, written, tmp_path):
        quantize(written[1], tmp_path)
        host = ThinkingHost(tmp_path, threads=1)
        images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
        images[2] *= 30  # activations of another range
        host.threshold = float(np.median(host.think(images)["entropy"][:, 0]))
        together = host.think(images)
        assert len(set(together["exit_stage"])) == 2
        for i in range(3):
            for name, alone in host.think(images[i : i + 1]).items():
                np.testing.assert_array_equal(together[name][i], alone[0], name)

    def test_int8_weights_of_seven_bits(self, written, tmp_path):
        import onnx

        quantize(written[1], tmp_path, reduce_range=True)
        tensors = onnx.load(tmp_path / "stage0.onnx").graph.initializer
        weights = [onnx.numpy_helper.to_array(x) for x in tensors if x.data_type == 3]  # INT8
        assert max(np.abs(x.astype(int)).max() for x in weights if x.ndim == 2) == 64


@needs_onnx
@pytest.mark.integration
@pytest.mark.parametrize(
    ("kind", "pruning"), [("dinov3", PRUNING), ("dinov3", None), ("eva", None)]
)
@torch.no_grad()
def test_todays_vits(tmp_path, kind, pruning):
    depth = 2 if pruning else 1
    model = segmentor(GATE, backbone=dict(KINDS[kind], pruning=pruning, num_layers=depth))
    export(model, CFG, tmp_path, noise(), any_size=pruning is None)
    host = ThinkingHost(tmp_path, threads=1)
    host.threshold = model.backbone.gate.threshold = 0.0
    images = torch.randn(2, 3, 32, 48) if pruning else torch.randn(2, 3, 24, 72)
    wanted = model.think(images).seg_logits
    np.testing.assert_allclose(host.think(images.numpy())["seg_logits"], wanted, atol=1e-4)


@pytest.mark.integration
@pytest.mark.parametrize("stage", [None, 0])
@torch.no_grad()
def test_torch_export(tmp_path, stage):
    model = segmentor(GATE, backbone=SMALL)
    manifest = export(model, CFG, tmp_path, noise(), stage=stage, format="pt2")
    assert manifest["size"] == [32, 48]
    images = torch.randn(3, 3, 32, 48)
    wanted = model.think(images, None if stage is None else FixedGate(stage))
    found = FORMATS["pt2"](tmp_path).think(images.numpy())
    np.testing.assert_allclose(found["seg_logits"], wanted.seg_logits, atol=1e-5)
    assert found["exit_stage"].tolist() == wanted.exit_stage.tolist()
    with pytest.raises(ExportError, match="made of ONNX graphs, not of pt2"):
        quantize(tmp_path, tmp_path / "int8")


@pytest.mark.integration
@pytest.mark.parametrize(
    "build",
    [
        swin,
        lambda: segmentor(
            dict(type="PixelEntropyGate", threshold=1.5), backbone=dict(pruning=PRUNING)
        ),
    ],
)
def test_other_models(tmp_path, build):
    assert export(build(), CFG, tmp_path, noise(), format="pt2")["largest_difference"] < 1e-3


@pytest.mark.integration
@pytest.mark.parametrize("format", ["pt2", pytest.param("onnx", marks=needs_onnx)])
@pytest.mark.parametrize("nested_head", [False, True])
@torch.no_grad()
def test_uncertain_tokens(tmp_path, format, nested_head):
    """Each later stage on a share of the tokens, and an image gate."""
    heads = (2, 4) if nested_head else (1, 2, 4)
    pruning = dict(TOKENS, stages=range(1, len(heads)))
    backbone = dict(SMALL, thinking_stages=heads, pruning=pruning)
    model = segmentor(GATE, MASK, backbone=backbone, nested_head=nested_head)
    export(model, CFG, tmp_path, noise(), format=format)
    host, images = FORMATS[format](tmp_path), torch.randn(4, 3, 32, 48)
    entropy = model.think(images, FixedGate(0)).entropy[:, 0]
    host.threshold = model.backbone.gate.threshold = float(entropy.median()) + 1e-6
    found, wanted = host.think(images.numpy()), model.think(images)
    assert len(set(found["exit_stage"].tolist())) > 1
    np.testing.assert_allclose(found["seg_logits"], wanted.seg_logits, atol=1e-4)
    assert found["exit_stage"].tolist() == wanted.exit_stage.tolist()


@pytest.mark.integration
@pytest.mark.parametrize("format", ["pt2", pytest.param("onnx", marks=needs_onnx)])
@pytest.mark.parametrize("gate", [GATE, dict(type="PixelEntropyGate", threshold=1.5)])
@torch.no_grad()
def test_nested_head(tmp_path, format, gate):
    """One decode graph for each width, with the weights of that width alone."""
    model = segmentor(gate, MASK, backbone=SMALL, nested_head=True)
    manifest = export(model, CFG, tmp_path, noise(), format=format)
    assert manifest["decode"] == [f"decode0.{format}", f"decode1.{format}"]
    expected = np.array(stage_macs(model, (32, 48)))
    expected[0] += 24 * 192 * 16  # the first graph embeds at the width of the last stage
    assert manifest["gmacs"] == pytest.approx(expected / 1e9)
    narrow, wide = ((tmp_path / name).stat().st_size for name in manifest["decode"])
    assert narrow < wide
    host, images = FORMATS[format](tmp_path), torch.randn(4, 3, 32, 48)
    entropy = model.think(images).entropy[:, 0]
    host.threshold = model.backbone.gate.threshold = float(entropy.median()) + 1e-6
    found, wanted = host.think(images.numpy()), model.think(images)
    assert set(found["exit_stage"].tolist()) == {0, 1}
    np.testing.assert_allclose(found["seg_logits"], wanted.seg_logits, atol=1e-4)


def test_a_model_of_one_size(tmp_path):
    with pytest.raises(ExportError, match="graphs for any size are not possible: "):
        export(swin(), CFG, tmp_path, noise(), any_size=True, format="pt2")


def write_wrong(program, path, **names):
    with torch.no_grad():
        for weight in program.state_dict.values():
            weight.add_(0.1)
    torch.export.save(program, path)


@pytest.mark.integration
def test_a_failed_export_leaves_no_manifest(tmp_path, monkeypatch):
    (tmp_path / "manifest.json").touch()  # of an earlier export
    monkeypatch.setitem(WRITERS, "pt2", write_wrong)
    with pytest.raises(ExportError, match="is off by"):
        export(segmentor(FixedGate(0), backbone=SMALL), CFG, tmp_path, noise(), format="pt2")
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(
    ("gate", "options", "error", "message"),
    [
        (dict(type="RandomGate", p=0.5), {}, ExportError, "RandomGate decides in Python"),
        (GATE, dict(stage=2), ConfigError, r"stage must be in \[0, 1\], got 2"),
        (GATE, dict(format="trt"), ConfigError, "format must be one of"),
    ],
)
def test_arguments(tmp_path, gate, options, error, message):
    with pytest.raises(error, match=message):
        export(segmentor(gate), CFG, tmp_path / "out", noise(), **options)
    assert not (tmp_path / "out").exists()


def cascade():
    heads = [dict(FCN, in_channels=16), dict(FCN, type="OCRHead", ocr_channels=4)]
    for head in heads:
        head.pop("num_convs"), head.pop("concat_input")
    return MODELS.build(
        dict(type="CascadeEncoderDecoder", num_stages=2, backbone=dict(SWIN, gate=GATE),
             decode_head=heads, test_cfg=dict(mode="whole"))
    ).eval()  # fmt: skip


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (cascade, "CascadeEncoderDecoder has a cascade of decode heads"),
        (lambda: segmentor(GATE, backbone=dict(in_channels=1)), "images of 3 channels"),
        (lambda: torch.nn.Linear(1, 1), "Linear has no thinking backbone"),
    ],
)
def test_models_that_cannot_be_exported(tmp_path, model, message):
    with pytest.raises(ExportError, match=message):
        export(model(), CFG, tmp_path, noise())


def test_a_config_without_test_data(tmp_path):
    with pytest.raises(ExportError, match="no test_dataloader"):
        export(segmentor(GATE), Config(dict()), tmp_path, noise(), format="pt2")


def test_an_old_torch(tmp_path, monkeypatch):
    monkeypatch.setattr("tvit_seg.utils.versions._installed", lambda name: "2.8.0")
    with pytest.raises(ExportError, match=r"torch 2\.8\.0 is .* torch>=2\.13 works.*pt2"):
        export(segmentor(GATE), CFG, tmp_path, noise())


def test_missing_packages(tmp_path, monkeypatch):
    monkeypatch.setattr("tvit_seg.deploy.formats.find_spec", lambda name: None)
    with pytest.raises(ExportError, match="onnx, onnxscript, onnxruntime missing"):
        export(segmentor(GATE), CFG, tmp_path, noise())
