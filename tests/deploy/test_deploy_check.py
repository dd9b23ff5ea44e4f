import numpy as np
import pytest
import torch
from helpers.builders import segmentor
from helpers.deployment import ModuleHost

from tvit_seg.deploy.check import check_graphs, check_host
from tvit_seg.errors import ExportError

SIZE = (32, 48)


@pytest.fixture
def parts():
    model = segmentor(dict(type="EntropyGate", threshold=1.0))
    host = ModuleHost(model, SIZE)
    runs = dict(zip(host.graphs, [*host.stages, host.decode], strict=True))
    return model, host, runs, [torch.randn(n, 3, *SIZE) for n in (3, 1)]


def test_what_is_right(parts):
    model, host, runs, batches = parts
    assert check_graphs(runs, host.graphs, batches) == 0
    assert check_host(host, model, batches) < 1e-5
    assert host.threshold == 1.0  # as it was
    assert model.backbone.gate.threshold == 1.0


def test_a_wrong_number(parts):
    _, host, runs, batches = parts
    right = runs["stage1"]

    def wrong(arrays):
        found = right(arrays)
        return {**found, "logits": found["logits"] + 0.01}

    with pytest.raises(ExportError, match=r"stage1: logits is off by 0.01, at most 0.001"):
        check_graphs({**runs, "stage1": wrong}, host.graphs, batches)


def test_no_number(parts):
    _, host, runs, batches = parts
    right = runs["decode"]

    def wrong(arrays):
        return {name: np.full_like(x, np.nan) for name, x in right(arrays).items()}

    with pytest.raises(ExportError, match="decode: seg_logits is off by nan"):
        check_graphs({**runs, "decode": wrong}, host.graphs, batches)


def test_a_graph_for_two_images_only(parts):
    _, host, runs, batches = parts
    right = runs["stage0"]

    def frozen(arrays):
        if len(arrays["images"]) != 2:
            raise RuntimeError("Got: 3 Expected: 2")
        return right(arrays)

    with pytest.raises(ExportError, match=r"stage0 does not run on 3 images.*frozen the batch"):
        check_graphs({**runs, "stage0": frozen}, host.graphs, batches)

    def short(arrays):
        return {name: x[:2] for name, x in right(arrays).items()}

    with pytest.raises(ExportError, match=r"stage0 \(.*\): the exporter froze the batch at 2"):
        check_graphs({**runs, "stage0": short}, host.graphs, batches)


def test_another_size_than_traced(parts):
    model, _, _, batches = parts
    host = ModuleHost(model, SIZE, any_size=True)
    runs = dict(zip(host.graphs, [*host.stages, host.decode], strict=True))
    batches = [*batches, torch.randn(1, 3, 16, 24)]
    assert check_graphs(runs, host.graphs, batches) == 0

    def wrong(arrays, right=host.decode):
        found = right(arrays)["seg_logits"]
        return {"seg_logits": found + (found.shape[-2:] != SIZE)}

    message = r"seg_logits is off by 1, .* on images of 16 x 24 pixels .*\(--size\)"
    with pytest.raises(ExportError, match=message):
        check_graphs({**runs, "decode": wrong}, host.graphs, batches)


def test_a_host_that_decides_otherwise(parts):
    model, host, _, batches = parts
    right = host.stages[0]
    host.stages[0] = lambda arrays: {**right(arrays), "entropy": right(arrays)["entropy"] + 0.5}
    with pytest.raises(ExportError, match="images stop after stages"):
        check_host(host, model, batches)


def test_a_host_that_predicts_otherwise(parts):
    model, host, _, batches = parts
    host.decode = lambda arrays, right=host.decode: {"seg_logits": right(arrays)["seg_logits"] + 1}
    with pytest.raises(ExportError, match="host loop: seg_logits is off by 1, "):
        check_host(host, model, batches)


def test_a_fixed_stage():
    model = segmentor(dict(type="EntropyGate", threshold=1.0))
    host = ModuleHost(model, SIZE, stage=1)
    assert check_host(host, model, [torch.randn(2, 3, *SIZE)], stage=1) < 1e-5
