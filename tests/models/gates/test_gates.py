"""Gates and the arithmetic under them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tvit_seg import EntropyGate, FixedGate, Gate, PixelEntropyGate, RandomGate
from tvit_seg.errors import ConfigError
from tvit_seg.models.gates import build_gate
from tvit_seg.models.gates.functional import pixel_entropy, sigmoid_entropy, softmax_entropy
from tvit_seg.thinking import StageOutput, measure


def output(logits=None, images=None, stage=0, num_stages=2):
    count = len(images if logits is None else logits)
    return StageOutput(
        stage=stage,
        num_stages=num_stages,
        tokens=torch.zeros(count, 2, 4),
        features=(torch.zeros(count, 4, 1, 1),),
        logits=logits,
        images=images,
    )


def test_top_k_is_the_renormalised_head_of_the_distribution():
    logits = torch.randn(5, 30)
    p = logits.softmax(-1).topk(10).values
    p = p / p.sum(-1, keepdim=True)
    torch.testing.assert_close(softmax_entropy(logits, 10), -(p * p.log()).sum(-1))


def test_sigmoid_entropy_is_the_mean_of_binary_entropies():
    logits = torch.randn(5, 7)
    p = logits.sigmoid()
    binary = -(p * p.log() + (1 - p) * (1 - p).log())
    torch.testing.assert_close(sigmoid_entropy(logits), binary.mean(-1))
    best = p.argmax(-1, keepdim=True)
    torch.testing.assert_close(sigmoid_entropy(logits, 1), binary.gather(1, best)[:, 0])


def test_pixel_entropy_is_the_mean_over_pixels():
    logits = torch.randn(2, 3, 4, 5)
    expected = torch.stack([softmax_entropy(image.flatten(1).T).mean() for image in logits])
    torch.testing.assert_close(pixel_entropy(logits), expected)


@given(
    st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=8),
    st.one_of(st.none(), st.integers(2, 8)),
)
@settings(max_examples=100, deadline=None)
def test_entropy_bounds(values, topk):
    logits = torch.tensor([values])
    topk = topk and min(topk, len(values))
    assert -1e-6 <= softmax_entropy(logits, topk).item() <= math.log(topk or len(values)) + 1e-5
    assert -1e-6 <= sigmoid_entropy(logits, topk).item() <= math.log(2) + 1e-5


def test_pixel_gate_without_a_decode_head():
    with pytest.raises(ConfigError, match="needs a decode head"):
        measure(PixelEntropyGate(1.0), output(torch.zeros(2, 3)), torch.zeros(2, 3, 8, 8))


def test_fixed_gate_counts_from_both_ends():
    first, last = FixedGate(0), FixedGate(-1)
    for stage in range(3):
        out = output(torch.zeros(2, 3), stage=stage, num_stages=3)
        assert first.stop(out, None) is True
        assert last.stop(out, None) is (stage == 2)


def test_random_gate_with_a_seed_depends_on_the_image_alone():
    images = torch.randn(50, 3, 8, 8)
    gate = RandomGate(0.5, seed=3)
    stops = gate.stop(output(images=images), None)
    assert 10 < stops.sum() < 40
    order = torch.randperm(50)
    assert torch.equal(gate.stop(output(images=images[order]), None), stops[order])
    assert not torch.equal(RandomGate(0.5, seed=4).stop(output(images=images), None), stops)
    # stages decide independently
    assert not torch.equal(gate.stop(output(images=images, stage=1), None), stops)


@pytest.mark.parametrize("topk", [1, 2.5])
def test_bad_topk(topk):
    with pytest.raises(ConfigError, match="topk must be an integer >= 2"):
        EntropyGate(1.0, topk=topk)


@pytest.mark.parametrize("threshold", [-1, float("nan"), None, "1", True])
def test_bad_threshold(threshold):
    with pytest.raises(ConfigError, match="threshold must be a number >= 0"):
        EntropyGate(threshold)


@pytest.mark.parametrize("options", [dict(p=1.5), dict(p=0.5, seed=-1)])
def test_bad_random_gate(options):
    with pytest.raises(ConfigError, match=r"RandomGate (p|seed) must be"):
        RandomGate(**options)


def test_build_gate():
    gate = FixedGate(0)
    assert build_gate(gate) is gate
    assert isinstance(build_gate(None), FixedGate)
    assert build_gate(dict(type="EntropyGate", threshold=2)).threshold == 2.0
    for wrong in (dict(threshold=2), ["x"]):
        with pytest.raises(ConfigError, match=r"gate must be None or a dict .*EntropyGate"):
            build_gate(wrong)


def test_a_new_gate_is_one_class():
    class Even(Gate):
        def stop(self, output, entropy):
            return torch.arange(len(output.tokens)) % 2 == 0

    out = output(torch.zeros(4, 3))
    gate = Even()
    assert gate.entropy(out).tolist() == pytest.approx([math.log(3)] * 4)
    assert gate.stop(out, None).tolist() == [True, False, True, False]
