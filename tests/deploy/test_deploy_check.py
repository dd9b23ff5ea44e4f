import numpy as np
import pytest
import torch
from helpers.builders import segmentor
from helpers.deployment import GATE, ModuleHost

from tvit_seg.deploy.check import check_graphs, check_host
from tvit_seg.errors import ExportError

SIZE = (32, 48)


@pytest.fixture
def parts():
    model = segmentor(GATE)
    host = ModuleHost(model, SIZE)
    return model, host, host.runs(), [torch.randn(n, 3, *SIZE) for n in (3, 1)]


def shifted(run, name, difference):
    """The graph with another output."""

    def wrong(arrays):
        found = run(arrays)
        return {**found, name: found[name] + np.float32(difference)}

    return wrong


def test_equal_graphs_pass(parts):
    model, host, runs, batches = parts
    assert check_graphs(runs, host.graphs, batches) == 0
    assert check_host(host, model, batches) < 1e-5
    assert host.threshold == model.backbone.gate.threshold == 1.0  # unchanged


@pytest.mark.parametrize(
    ("name", "output", "difference"), [("stage1", "logits", 0.01), ("decode", "seg_logits", np.nan)]
)
def test_wrong_numbers(parts, name, output, difference):
    _, host, runs, batches = parts
    runs[name] = shifted(runs[name], output, difference)
    with pytest.raises(ExportError, match=rf"{name}: {output} is off by {difference}"):
        check_graphs(runs, host.graphs, batches)


class Constant:
    """A graph with the same logits for any image."""

    inputs = ()

    def __init__(self, size):
        self.size = size

    def __call__(self, inputs):
        return {"logits": torch.full((2, 5), self.size)}


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_the_tolerance_goes_by_the_size_of_an_output(size):
    """Rounding of large numbers is no fault, and an error of half the size of small ones is."""
    graph = Constant(size)

    def check(error):
        run = shifted(lambda arrays: {"logits": graph(arrays)["logits"].numpy()}, "logits", error)
        check_graphs({"stage0": run}, {"stage0": graph}, [torch.zeros(2, 3, *SIZE)])

    check(5e-5 * size)
    with pytest.raises(ExportError, match="logits is off by"):
        check(4e-4 * size + 2e-4)


def test_a_graph_for_two_images_only(parts):
    _, host, runs, batches = parts
    right = runs["stage0"]

    def refuse(arrays):
        if len(arrays["images"]) != 2:
            raise RuntimeError("Got: 3 Expected: 2")
        return right(arrays)

    with pytest.raises(ExportError, match="stage0 does not run on 3 images"):
        check_graphs({**runs, "stage0": refuse}, host.graphs, batches)

    def cut(arrays):
        return {name: x[:2] for name, x in right(arrays).items()}

    with pytest.raises(ExportError, match=r"stage0 \(.*\) accepts batches of 2 images only"):
        check_graphs({**runs, "stage0": cut}, host.graphs, batches)


def test_another_size_than_traced(parts):
    model, _, _, batches = parts
    host = ModuleHost(model, SIZE, any_size=True)
    runs, batches = host.runs(), [*batches, torch.randn(1, 3, 16, 24)]
    assert check_graphs(runs, host.graphs, batches) == 0

    def wrong(arrays, right=host.decode[0]):
        found = right(arrays)["seg_logits"]
        return {"seg_logits": found + (found.shape[-2:] != SIZE)}

    with pytest.raises(ExportError, match=r"seg_logits is off by 1, .* 16 x 24 pixels, .*--size"):
        check_graphs({**runs, "decode": wrong}, host.graphs, batches)


def test_a_host_that_decides_otherwise(parts):
    model, host, _, batches = parts
    host.stages[0] = shifted(host.stages[0], "entropy", 0.5)
    with pytest.raises(ExportError, match="images exit after stages"):
        check_host(host, model, batches)
    assert model.backbone.gate.threshold == 1.0


def test_a_host_that_predicts_otherwise(parts):
    model, host, _, batches = parts
    host.decode = [shifted(run, "seg_logits", 1) for run in host.decode]
    with pytest.raises(ExportError, match="host loop: seg_logits is off by 1, "):
        check_host(host, model, batches)
