"""Models whose exit stage is fixed can be traced; those that decide for each image cannot."""

import subprocess
import sys

import pytest
import timm
import torch
from torch.export import Dim

import tvit_seg
from tvit_seg.errors import ConfigError, ExportError

MODELS = {
    "thinkingvit_2h_3h": dict(img_size=32, patch_size=8, depth=2),
    "thinkingswin_tiny": dict(depths=(1, 1, 2, 1)),
}
FIXED = [None, dict(type="FixedGate", stage=0)]


def build(name, **options):
    torch.manual_seed(0)
    return timm.create_model(name, **MODELS[name], num_classes=12, **options).eval()


def export(model, images):
    return torch.export.export(model, (images,), dynamic_shapes=({0: Dim("n", max=64)},)).module()


def onnx(model, images, path, dynamo):
    ort = pytest.importorskip("onnxruntime")
    axes = dict(dynamic_shapes=({0: Dim("n", max=64)},))
    if not dynamo:
        axes = dict(input_names=["images"], dynamic_axes=dict(images={0: "n"}))
    torch.onnx.export(model, (images,), str(path), dynamo=dynamo, **axes)
    session = ort.InferenceSession(path)
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


@pytest.mark.integration
@pytest.mark.parametrize("gate", FIXED, ids=["none", "fixed"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("trace", [torch.jit.trace, export])
@torch.no_grad()
def test_a_graph_takes_other_batch_sizes(name, gate, trace):
    model = build(name, gate=gate)
    traced = trace(model, torch.randn(2, 3, 32, 32))
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(traced(images), model(images))


@pytest.mark.integration
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dynamo", [False, True])
@torch.no_grad()
def test_onnx_with_either_exporter(name, dynamo, tmp_path):
    model = build(name)
    run = onnx(model, torch.randn(2, 3, 32, 32), tmp_path / "model.onnx", dynamo)
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(run(images), model(images), atol=1e-4, rtol=1e-4)


GATES = [
    dict(type="EntropyGate", threshold=2.0),
    dict(type="RandomGate", p=0.5),
    dict(type="BudgetGate", gate=dict(type="EntropyGate", threshold=2.0), think_shares=0.5),
]


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate["type"])
@torch.no_grad()
def test_a_gated_model_is_not_traced(gate):
    with pytest.raises(ExportError, match=f"^{gate['type']} decides for each image"):
        torch.jit.trace(build("thinkingvit_2h_3h", gate=gate), torch.randn(2, 3, 32, 32))


@torch.no_grad()
def test_a_gated_model_is_not_exported():
    model = build("thinkingvit_2h_3h", threshold=2.0)
    with pytest.raises(ExportError, match="FixedGate"):
        export(model, torch.randn(2, 3, 32, 32))


@torch.no_grad()
def test_backbones_of_segmentors():
    options = dict(img_size=32, patch_size=8, num_layers=1, thinking_stages=(1, 2))
    backbone = tvit_seg.ThinkingViT(**options, num_classes=3, gate=GATES[0]).eval()
    images = torch.randn(2, 3, 32, 32)
    with pytest.raises(ExportError, match="EntropyGate"):
        torch.jit.trace(backbone, images)
    backbone.set_gate(None)
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(torch.jit.trace(backbone, images[:2])(images), backbone(images))


@torch.no_grad()
def test_profilers_that_trace_count_an_ungated_model():
    """As fvcore does, which timm's ``benchmark.py --bench profile`` calls."""
    graph, _ = torch.jit._get_trace_graph(build("thinkingvit_2h_3h"), (torch.randn(1, 3, 32, 32),))
    assert sum(node.kind() == "aten::linear" for node in graph.nodes()) == 2 * (2 * 4) + 2


@pytest.mark.parametrize("name", MODELS)
def test_options_as_timms_scripts_pass_them(name):
    model = build(name, threshold="inf", dynamic_img_size=True, dynamic_img_pad=True)
    assert model.gate.threshold == float("inf")
    assert model.think(torch.randn(2, 3, 32, 32)).exit_stage.tolist() == [0, 0]
    with pytest.raises(ConfigError, match="dynamic_img_size must be one of True"):
        build(name, dynamic_img_size=False)
    with pytest.raises(ValueError, match="high"):
        build(name, threshold="high")


@pytest.mark.integration
def test_scripts_in_child_processes_know_the_models(tmp_path):
    """As timm's bulk_runner.py starts them: python -u -m MODULE SCRIPT ARGUMENTS."""
    (tmp_path / "beside.py").write_text("NAME = 'thinkingvit_3h_6h'\n")
    script = tmp_path / "benchmark.py"
    script.write_text(
        "import sys, timm\nfrom beside import NAME\n"
        "assert __name__ == '__main__' and sys.argv == [__file__, '--model', NAME], sys.argv\n"
        "print(timm.is_model(NAME), timm.list_models('thinkingswin_t*'))\n"
    )
    command = [sys.executable, "-u", "-m", "tvit_seg.models.timm_models", str(script)]
    command += ["--model", "thinkingvit_3h_6h"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True ['thinkingswin_tiny']"
