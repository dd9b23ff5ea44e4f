import pytest
import torch
from helpers.builders import classifier, segmentor
from helpers.deployment import FCN, GATE, PRUNING, SWIN, swin
from mmseg.models import EncoderDecoder

from tvit_seg import ThinkingSwin
from tvit_seg.deploy.graphs import build_graphs
from tvit_seg.deploy.narrow import narrow

NECK = dict(type="MultiLevelNeck", in_channels=[32] * 2, out_channels=32, scales=[1, 1])


MODELS = {
    "vit": lambda: segmentor(GATE),
    "three stages": lambda: segmentor(GATE, backbone=dict(thinking_stages=(1, 2, 4))),
    "pruned": lambda: segmentor(GATE, backbone=dict(pruning=PRUNING)),
    "swin": swin,
    "classifier": lambda: classifier(GATE),
    "several maps": lambda: segmentor(
        GATE, backbone=dict(out_indices=(0, 1)), neck=NECK,
    ),
}  # fmt: skip


def run(graphs, images, cut=False):
    tensors, inputs = {"images": images}, {}
    for name, graph in graphs.items():
        inputs[name] = {key: tensors[key] for key in graph.inputs}
        with torch.no_grad():
            tensors |= (narrow(graph, inputs[name]) if cut else graph)(inputs[name])
    return tensors, inputs


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_chain_is_the_model(kind, cut):
    model = MODELS[kind]()
    images = torch.randn(3, 3, 40, 48)
    tensors, _ = run(build_graphs(model, images), images, cut)
    with torch.no_grad():
        outputs = model.backbone.forward_stages(images)
        last = outputs[-1]
        for i, output in enumerate(outputs):
            torch.testing.assert_close(tensors[f"tokens_{i}"], output.tokens)
        torch.testing.assert_close(tensors["logits"], last.logits)
        torch.testing.assert_close(tensors["entropy"], model.backbone.gate.entropy(last))
        for i, x in enumerate(last.features):
            torch.testing.assert_close(tensors[f"features_{i}"], x)
        if "seg_logits" in tensors:
            wanted = model.decoder(images)(last.features)[..., :40, :48]
            torch.testing.assert_close(tensors["seg_logits"], wanted)


@pytest.mark.parametrize("kind", ["vit", "swin", "pruned", "classifier"])
@pytest.mark.parametrize("stage", [0, 1])
def test_one_stage_in_one_graph(kind, stage):
    model = MODELS[kind]()
    images = torch.randn(2, 3, 40, 48)
    graphs = build_graphs(model, images, stage)
    assert list(graphs) == ["model"]
    for cut in (False, True):
        tensors, _ = run(graphs, images, cut)
        with torch.no_grad():
            output = model.backbone.forward_stages(images)[stage]
        torch.testing.assert_close(tensors["logits"], output.logits)


def test_later_stages_take_embedding_and_tokens():
    graphs = build_graphs(MODELS["three stages"](), torch.randn(2, 3, 40, 48))
    assert graphs["stage0"].inputs == ("images",)
    assert graphs["stage2"].inputs == ("embedding", "tokens_1")
    graphs = build_graphs(MODELS["vit"](), torch.randn(2, 3, 40, 48), any_size=True)
    assert graphs["stage1"].inputs == ("embedding", "tokens_0", "images")


def test_a_fixed_gate_ends_the_chain():
    model = segmentor(dict(type="FixedGate", stage=0))
    assert list(build_graphs(model, torch.randn(2, 3, 32, 32))) == ["stage0", "decode"]


def test_a_gate_on_pixels_is_measured_behind_the_decode_head():
    model = segmentor(dict(type="PixelEntropyGate", threshold=1.0))
    graphs = build_graphs(model, images := torch.randn(2, 3, 32, 32))
    inputs = run(graphs, images)[1]
    assert "entropy" not in graphs["stage0"](inputs["stage0"])
    assert "entropy" in graphs["decode"](inputs["decode"])


def test_the_drop_in_is_resized_to_the_image():
    """mmseg's plain segmentor stretches logits to the image where ours completes the image."""
    backbone = dict(
        type="ThinkingViT", img_size=32, patch_size=8, embed_dims=32, num_layers=1, num_heads=4,
        thinking_stages=(2, 4), num_classes=5, gate=GATE,
    )  # fmt: skip
    head = dict(FCN, in_channels=32, in_index=0)
    model = EncoderDecoder(backbone=backbone, decode_head=head, test_cfg=dict(mode="whole")).eval()
    images = torch.randn(2, 3, 30, 41)
    tensors, _ = run(build_graphs(model, images), images)
    with torch.no_grad():
        model.backbone.set_gate(None)
        wanted = model.encode_decode(images, [dict(img_shape=(30, 41), pad_shape=(30, 41))] * 2)
    torch.testing.assert_close(tensors["seg_logits"], wanted)


def test_narrow_graphs_hold_what_they_read():
    model = segmentor(GATE)
    graphs = build_graphs(model, images := torch.randn(2, 3, 32, 32))
    _, inputs = run(graphs, images)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    cut = narrow(graphs["stage0"], inputs["stage0"])
    assert cut.backbone.blocks[0].attn.qkv.weight.shape == (48, 16)  # of (96, 32)
    assert cut.backbone.blocks[0].mlp.fc1.weight.shape == (64, 16)
    assert cut.backbone.norm.weight.shape == (16,)
    assert cut.backbone.head.weight.shape == (5, 16)
    for name, x in model.state_dict().items():  # the model itself stays
        assert torch.equal(x, before[name])


def test_a_plain_backbone():
    backbone = ThinkingSwin(**{k: v for k, v in SWIN.items() if k != "type"}).eval()
    graphs = build_graphs(backbone, images := torch.randn(2, 3, 32, 32))
    tensors, _ = run(graphs, images)
    assert list(graphs) == ["stage0", "stage1"]
    assert tensors["features_1"].shape == (2, 16, 4, 4)
