import pytest
import torch
from helpers.builders import MASK, segmentor
from torch import nn

from tvit_seg.deploy.export import _chain
from tvit_seg.deploy.graphs import Graph, build_graphs
from tvit_seg.deploy.trace import trace
from tvit_seg.errors import ExportError
from tvit_seg.models.gates import ThresholdGate

GATE = dict(type="EntropyGate", threshold=1.0)
SMALL = dict(num_layers=1)


def graphs_of(model, any_size=False, size=(40, 48)):
    images = torch.randn(2, 3, *size)
    graphs = build_graphs(model, images, any_size=any_size)
    return graphs, _chain(graphs, images)


def test_any_number_and_any_size():
    model = segmentor(GATE, head=MASK, backbone=SMALL)
    graphs, example = graphs_of(model, any_size=True)
    other = _chain(graphs, torch.randn(2, 3, 16, 24))
    for name, graph in graphs.items():
        module = trace(name, graph, example, other, 8).module()
        for shape in ((1, 40, 48), (3, 32, 64)):
            tensors = _chain(graphs, torch.randn(shape[0], 3, *shape[1:]))
            inputs = {key: tensors[key] for key in graph.inputs}
            with torch.no_grad():
                torch.testing.assert_close(module(inputs), graph(inputs))


class Counting(nn.Module):
    """A layer that takes the number of images for a number."""

    def forward(self, features):
        x = features[0]
        return (x.reshape(len(x), -1).reshape(x.shape),)


class Branching(nn.Module):
    """A layer that does something else for many images."""

    def forward(self, features):
        x = features[0]
        return (x if x.shape[0] == 2 else 2 * x,)


class OneHeight(Graph):
    """A graph with a branch for one size."""

    def forward(self, tensors):
        x = tensors["images"]
        return {"images_too": x if x.shape[2] == 40 else 2 * x}


@pytest.mark.parametrize("layer", [Counting, Branching])
def test_a_frozen_batch(layer):
    model = segmentor(GATE, backbone=SMALL)
    model.neck = layer()
    graphs, example = graphs_of(model)
    with pytest.raises(ExportError, match=r"decode: the exporter froze the batch at 2 images"):
        trace("decode", graphs["decode"], example, None, 1)


def test_a_frozen_size():
    example, other = ({"images": torch.randn(2, 3, height, 48)} for height in (40, 24))
    with pytest.raises(ExportError, match=r"one: the exporter froze .*rows.*--size"):
        trace("one", OneHeight(["images"], None), example, other, 8)


def test_what_cannot_be_traced():
    model = segmentor(GATE, backbone=SMALL)
    graphs, example = graphs_of(model)
    graphs["decode"].neck = Stubborn()
    with pytest.raises(ExportError, match="decode cannot be exported: "):
        trace("decode", graphs["decode"], example, None, 1)


class Stubborn(nn.Module):
    """A layer that looks at the data."""

    def forward(self, features):
        return features if features[0].sum() > 0 else (2 * features[0],)


class FloatGate(ThresholdGate):
    """A gate of one's own that computes in Python."""

    def entropy(self, output):
        return output.logits[:, 0] if float(output.logits[0, 0]) > 0 else output.logits[:, 1]


class NumpyGate(ThresholdGate):
    """A gate of one's own that leaves torch."""

    def entropy(self, output):
        return torch.from_numpy(output.logits.detach().numpy().max(1))


class ColumnGate(ThresholdGate):
    """A gate of one's own that keeps an axis."""

    def entropy(self, output):
        return output.logits[:, :1]


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (FloatGate, r"FloatGate cannot be exported: its entropy\(\) computes in Python.*--stage"),
        (NumpyGate, r"NumpyGate cannot be exported: its entropy\(\) computes in Python.*--stage"),
        (ColumnGate, r"ColumnGate cannot be exported: .* the shape \(2, 1\), .* needed, \(2,\)"),
    ],
)
def test_gates_that_a_graph_cannot_hold(gate, message, capfd):
    model = segmentor(gate(0.1), backbone=SMALL)
    with pytest.raises(ExportError, match=message):
        graphs, example = graphs_of(model)
        trace("stage0", graphs["stage0"], example, None, 1)
    assert len(capfd.readouterr().err) < 200  # not the exporter's own report
    graphs = build_graphs(model, images := torch.randn(2, 3, 40, 48), stage=0)
    trace("model", graphs["model"], {"images": images}, None, 1)  # which asks no gate
