"""Tracing of single graphs; whole folders are in ``test_exported_folders.py``."""

import pytest
import torch
from helpers.builders import MASK, segmentor
from helpers.deployment import GATE, SMALL
from torch import nn

from tvit_seg.deploy.formats import trace
from tvit_seg.deploy.graphs import Graph, build_graphs, run_chain
from tvit_seg.errors import ExportError
from tvit_seg.models.gates import ThresholdGate


def graphs_of(model, any_size=False):
    images = torch.randn(2, 3, 40, 48)
    graphs = build_graphs(model, images, any_size=any_size)
    return graphs, run_chain(graphs, images)


@pytest.mark.integration
@torch.no_grad()
def test_any_number_and_any_size():
    graphs, example = graphs_of(segmentor(GATE, head=MASK, backbone=SMALL), any_size=True)
    other = run_chain(graphs, torch.randn(2, 3, 16, 24))
    for name, graph in graphs.items():
        module = trace(name, graph, example, other, 8).module()
        for shape in ((1, 3, 40, 48), (3, 3, 32, 64)):
            tensors = run_chain(graphs, torch.randn(shape))
            inputs = {key: tensors[key] for key in graph.inputs}
            torch.testing.assert_close(module(inputs), graph(inputs))


class Counting(nn.Module):
    """A layer that uses the number of images as a Python number."""

    def forward(self, features):
        x = features[0]
        return (x.reshape(len(x), -1).reshape(x.shape),)


class DataDependent(nn.Module):
    """A layer that branches on the data."""

    def forward(self, features):
        return features if features[0].sum() > 0 else (2 * features[0],)


@pytest.mark.parametrize(
    ("neck", "message"),
    [
        (Counting, "decode accepts batches of 2 images only"),
        (DataDependent, "decode cannot be exported: "),
    ],
)
def test_layers_that_cannot_be_traced(neck, message):
    model = segmentor(GATE, backbone=SMALL)
    model.neck = neck()
    graphs, example = graphs_of(model)
    with pytest.raises(ExportError, match=message):
        trace("decode", graphs["decode"], example, None, 1)


class OneHeight(Graph):
    """A graph with a branch for one height."""

    def forward(self, tensors):
        x = tensors["images"]
        return {"images_too": x if x.shape[2] == 40 else 2 * x}


def test_a_graph_for_one_size():
    example, other = ({"images": torch.randn(2, 3, height, 48)} for height in (40, 24))
    with pytest.raises(ExportError, match=r"one accepts images of one size only: .*rows.*--size"):
        trace("one", OneHeight(["images"], None), example, other, 8)


class FloatGate(ThresholdGate):
    """A gate that computes in Python."""

    def entropy(self, output):
        return output.logits[:, 0] if float(output.logits[0, 0]) > 0 else output.logits[:, 1]


@pytest.mark.integration
def test_a_gate_that_computes_in_python(capfd):
    model = segmentor(FloatGate(0.1), backbone=SMALL)
    graphs, example = graphs_of(model)
    with pytest.raises(ExportError, match=r"FloatGate .* computes in Python.*--stage"):
        trace("stage0", graphs["stage0"], example, None, 1)
    assert len(capfd.readouterr().err) < 200  # not the exporter's own report
    graphs = build_graphs(model, example["images"], stage=0)
    trace("model", graphs["model"], example, None, 1)  # which has no gate
