import pytest
import torch
from helpers.builders import LINEAR, classifier, segmentor
from helpers.deployment import FCN, GATE, PRUNING, SWIN, TOKENS, swin
from mmseg.models import EncoderDecoder

from tvit_seg import (
    BudgetGate,
    EntropyGate,
    FixedGate,
    PixelEntropyGate,
    ThinkingSwin,
)
from tvit_seg.deploy.graphs import build_graphs, check_gate, narrow, run_chain
from tvit_seg.errors import ExportError
from tvit_seg.models.gates import ThresholdGate

NECK = dict(type="MultiLevelNeck", in_channels=[32] * 2, out_channels=32, scales=[1, 1])
MODELS = {
    "three stages": lambda: segmentor(GATE, backbone=dict(thinking_stages=(1, 2, 4))),
    "pruned": lambda: segmentor(GATE, backbone=dict(pruning=PRUNING)),
    "uncertain tokens": lambda: segmentor(GATE, backbone=dict(pruning=TOKENS)),
    "swin": swin,
    "classifier": lambda: classifier(GATE),
    "several maps": lambda: segmentor(GATE, backbone=dict(out_indices=(0, 1)), neck=NECK),
}


def cut(graphs, images):
    tensors = run_chain(graphs, images)
    return {
        name: narrow(graph, {key: tensors[key] for key in graph.inputs})
        for name, graph in graphs.items()
    }


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_chain_equals_the_model(kind):
    model, images = MODELS[kind](), torch.randn(3, 3, 40, 48)
    outputs = model.backbone.forward_stages(
        images, decode=getattr(model, "decoder", lambda _: None)(images)
    )
    graphs = build_graphs(model, images)
    for chain in (graphs, cut(graphs, images)):
        tensors = run_chain(chain, images)
        for i, output in enumerate(outputs):
            torch.testing.assert_close(tensors[f"tokens_{i}"], output.tokens)
        torch.testing.assert_close(tensors["logits"], output.logits)
        torch.testing.assert_close(tensors["entropy"], model.backbone.gate.entropy(output))
        for i, x in enumerate(output.features):
            torch.testing.assert_close(tensors[f"features_{i}"], x)
        if "decode" in chain:
            wanted = model.decoder(images)(output.features)[..., :40, :48]
            torch.testing.assert_close(tensors["seg_logits"], wanted)


@pytest.mark.parametrize(("stage", "count"), [(0, 1), (-1, 2)])
def test_a_fixed_gate_ends_the_chain(stage, count):
    graphs = build_graphs(segmentor(FixedGate(stage)), torch.randn(2, 3, 32, 32))
    assert list(graphs) == ["stage0", "stage1"][:count] + ["decode"]


@torch.no_grad()
def test_a_nested_neck_before_a_head_that_pads():
    neck = dict(type="FPN", in_channels=[32], out_channels=32, num_outs=1)
    head = dict(LINEAR, type="GCHead", channels=16, norm_cfg=dict(type="BN"))
    head = {key: x for key, x in head.items() if key not in ("num_convs", "concat_input")}
    with pytest.warns(UserWarning, match="GCHead"):
        model = segmentor(head=head, neck=neck, nested_head="auto")
    graphs = build_graphs(model, images := torch.randn(2, 3, 32, 32))
    assert list(graphs) == ["stage0", "decode0", "stage1", "decode1"]
    chain = {name: graphs[name] for name in ("stage0", "decode0")}
    wanted = model.think(images, FixedGate(0)).seg_logits
    torch.testing.assert_close(run_chain(chain, images)["seg_logits"], wanted)


def test_a_gate_on_pixels_is_measured_behind_the_decode_head():
    model = segmentor(PixelEntropyGate(1.0))
    graphs = build_graphs(model, images := torch.randn(2, 3, 32, 32))
    tensors = run_chain({"stage0": graphs["stage0"]}, images)
    assert "entropy" not in tensors
    assert "entropy" in graphs["decode"](tensors)


@torch.no_grad()
def test_the_drop_in_resizes_logits_to_the_image():
    """mmseg's plain segmentor stretches logits to the image where ours pads the image."""
    backbone = dict(
        type="ThinkingViT", img_size=32, patch_size=8, embed_dims=32, num_layers=1, num_heads=4,
        thinking_stages=(2, 4), num_classes=5, gate=GATE,
    )  # fmt: skip
    head = dict(FCN, in_channels=32, in_index=0)
    model = EncoderDecoder(backbone=backbone, decode_head=head, test_cfg=dict(mode="whole")).eval()
    images = torch.randn(2, 3, 30, 41)
    found = run_chain(build_graphs(model, images), images)["seg_logits"]
    model.backbone.set_gate(None)
    wanted = model.encode_decode(images, [dict(img_shape=(30, 41), pad_shape=(30, 41))] * 2)
    torch.testing.assert_close(found, wanted)


def test_narrow_graphs_hold_only_the_weights_that_they_read():
    model = segmentor(GATE)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    graphs = build_graphs(model, images := torch.randn(2, 3, 32, 32))
    backbone = cut(graphs, images)["stage0"].backbone
    assert backbone.blocks[0].attn.qkv.weight.shape == (48, 16)  # of (96, 32)
    assert backbone.blocks[0].mlp.fc1.weight.shape == (64, 16)
    assert backbone.norm.weight.shape == (16,)
    assert backbone.head.weight.shape == (5, 16)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_a_plain_backbone():
    backbone = ThinkingSwin(**{k: v for k, v in SWIN.items() if k != "type"}).eval()
    graphs = build_graphs(backbone, images := torch.randn(2, 3, 32, 32))
    assert list(graphs) == ["stage0", "stage1"]
    assert run_chain(graphs, images)["features_1"].shape == (2, 16, 4, 4)


class MarginGate(ThresholdGate):
    """A gate that measures differently."""

    def entropy(self, output):
        best = output.logits.topk(2).values
        return best[:, 1] - best[:, 0]


class SortingGate(EntropyGate):
    """A gate that decides differently."""

    def stop(self, output, entropy):
        return entropy.sort().values < self.threshold


def test_gates_that_compare_can_be_exported():
    for gate in (EntropyGate(0.1), PixelEntropyGate(0.1), FixedGate(-1), MarginGate(0.1)):
        check_gate(gate)


def test_gates_that_decide_in_python_cannot():
    for gate in (BudgetGate(EntropyGate(0.1), 0.5), SortingGate(0.1)):
        with pytest.raises(ExportError, match=f"{type(gate).__name__} decides in Python.*--stage"):
            check_gate(gate)


class ImageGate(ThresholdGate):
    """A gate that reads the image, which later graphs do not have."""

    def entropy(self, output):
        return output.images.mean(dim=(1, 2, 3))


def test_a_gate_that_a_graph_cannot_measure():
    images = torch.randn(2, 3, 32, 32)
    graph = build_graphs(segmentor(ImageGate(0.1)), images)["stage0"]
    with pytest.raises(ExportError, match=r"ImageGate cannot be exported: .*reads something"):
        graph({"images": images})
