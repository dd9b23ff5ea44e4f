"""Compiled blocks: the same results, few graphs, and no harm without a compiler."""

import os
import subprocess
import sys

import pytest
import torch
from helpers.builders import MASK, segmentor
from mmseg.models.backbones import VisionTransformer

from tvit_seg import EntropyGate, FixedGate, ThinkingSwin, ThinkingViT, stage_macs
from tvit_seg.models.compile import compile_blocks, why_not


def backbone(**kwargs):
    torch.manual_seed(0)
    options = dict(img_size=32, patch_size=8, embed_dims=32, num_layers=3, num_heads=4)
    return ThinkingViT(**options, thinking_stages=(2, 4), num_classes=5, **kwargs).eval()


def swin():
    options = dict(embed_dims=16, depths=(1, 2), num_heads=(2, 4), num_classes=5)
    return ThinkingSwin(**options, thinking_stages=((1, 2), (2, 4)))


@pytest.fixture
def graphs():
    """A backend that lists the graphs and runs them unchanged."""
    torch._dynamo.reset()
    seen = []

    def backend(module, inputs):
        seen.append(module)
        return module.forward

    yield seen, backend
    torch._dynamo.reset()


@pytest.mark.integration
@torch.no_grad()
def test_few_graphs_for_any_number_of_images(graphs):
    seen, backend = graphs
    plain, compiled = backbone(), backbone()
    assert compile_blocks(compiled, backend=backend)
    seen.clear()
    for count in (8, 5, 3, 1, 2, 7, 6, 4):
        images = torch.randn(count, 3, 32, 32)
        gate = EntropyGate(plain.think(images, FixedGate(0)).entropy[:, 0].median().item())
        one, other = (model.think(images, gate) for model in (plain, compiled))
        assert torch.equal(one.exit_stage, other.exit_stage)
        torch.testing.assert_close(one.logits, other.logits)
    assert 2 <= len(seen) <= 2 * 3  # stages x (first batch, a single image, any number)


def test_training(graphs):
    _, backend = graphs
    plain, compiled = backbone().train(), backbone().train()
    compile_blocks(compiled, backend=backend)
    images = torch.randn(2, 3, 32, 32)
    for model in (plain, compiled):
        sum(output.logits.square().sum() for output in model.forward_stages(images)).backward()
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@torch.no_grad()
def test_uncertain_tokens(graphs):
    """Keep ratios share graphs; the tokens that lend do so in compiled blocks."""
    seen, backend = graphs
    pruning = dict(type="UncertaintyPruning", keep_ratio=0.5)
    plain, compiled = (segmentor(backbone=dict(pruning=pruning)) for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    compile_blocks(compiled, backend=backend)
    seen.clear()
    images = torch.randn(3, 3, 32, 32)
    for keep_ratio in (0.5, 0.3, 0.7, 0.8, 1.0):
        for model in (plain, compiled):
            model.backbone.pruning.keep_ratio = keep_ratio
        one, other = (model.think(images).seg_logits for model in (plain, compiled))
        torch.testing.assert_close(one, other)
    assert len(seen) <= 4  # narrow; wide for one ratio, any, all


def test_names_and_cost_stay(graphs):
    seen, backend = graphs
    plain, compiled = backbone(), backbone()
    compile_blocks(compiled, backend=backend)
    seen.clear()
    assert list(plain.state_dict()) == list(compiled.state_dict())
    assert stage_macs(plain, (32, 32)) == stage_macs(compiled, (32, 32))
    assert not seen


def test_blocks_of_any_model(graphs):
    """Ours in a pyramid, mmseg's backbone's, and the decode head's."""
    _, backend = graphs
    mmseg = VisionTransformer(img_size=(32, 32), embed_dims=32, num_layers=2, num_heads=2)
    for model, count in ((swin(), 3), (mmseg, 2), (segmentor(head=MASK), 2 + 1)):
        compile_blocks(model, backend=backend)
        compiled = [m for m in model.modules() if m._compiled_call_impl is not None]
        assert len(compiled) == count


@pytest.mark.integration
@torch.no_grad()
def test_results_of_a_decode_head(graphs):
    _, backend = graphs
    model = segmentor(head=MASK)
    batches = [torch.randn(count, 3, 32, 40) for count in (3, 1, 2)]
    expected = [model.think(images) for images in batches]
    compile_blocks(model, backend=backend)
    for images, plain in zip(batches, expected, strict=True):
        found = model.think(images)
        for one, other in zip(found.features, plain.features, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.integration
def test_without_a_compiler():
    """In a process of its own, which has no g++ and none in the cache."""
    code = (
        "import torch; from tvit_seg import ThinkingViT; from tvit_seg.models.compile import *\n"
        "model = ThinkingViT(embed_dims=32, num_heads=2, num_layers=1, thinking_stages=(1, 2))\n"
        "assert compile_blocks(model.eval()) is False\n"
        "print(model(torch.zeros(1, 3, 32, 32))[0].shape)\n"
    )
    env = {**os.environ, "PATH": "", "CXX": "nowhere", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert "[1, 32, 2, 2]" in done.stdout
    assert "not compiled, everything runs as before" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@torch.no_grad()
def test_for_real():
    """With the default backend, where this machine has a compiler."""
    torch._dynamo.reset()
    plain, compiled = backbone(), backbone()
    if why_not(torch.device("cpu")) is not None:
        pytest.skip("no compiler here")
    compile_blocks(compiled)
    for count in (3, 1, 2):
        images = torch.randn(count, 3, 32, 32)
        torch.testing.assert_close(compiled.think(images).logits, plain.think(images).logits)
    torch._dynamo.reset()
