"""Properties for any stages, sizes, batches, thresholds and windows.

A result depends on its image alone; thresholds act in one direction; a sweep equals single
evaluations; padding by the network has no effect.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.builders import LINEAR, MASK, VIT, class_samples, lively, samples, segmentor
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.structures import BaseDataElement
from mmseg.registry import MODELS

from tvit_seg import EntropyGate, RandomGate, ThinkingClassifier
from tvit_seg.evaluation.sweep import sweep

pytestmark = pytest.mark.integration

CLASSES = 5
META = dict(classes=tuple("abcde"), palette=[[i] * 3 for i in range(CLASSES)])
CLOSE = {
    torch.float32: dict(atol=2e-5, rtol=1e-4),
    torch.bfloat16: dict(atol=6e-2, rtol=6e-2),
}
side = st.integers(16, 48)
seeds = st.integers(0, 2**16)
quantiles = st.floats(0, 1)
kinds = st.sampled_from(["vit", "pruned", "swin"])


@st.composite
def vits(draw, prune=False):
    """Configs of ThinkingViTs of one to three stages."""
    heads = tuple(sorted(draw(st.sets(st.integers(1, 4), min_size=1, max_size=3))))
    cfg = dict(VIT, thinking_stages=heads)
    if prune:
        cfg["pruning"] = dict(
            type="DynamicPruning",
            locations=draw(st.sampled_from([(0,), (1,), (0, 1)])),
            keep_ratio=draw(st.floats(0.5, 1)),
            restore=draw(st.sampled_from(["latest", "recycled"])) if heads[1:] else "latest",
        )
    return cfg


@st.composite
def swins(draw):
    """Configs of ThinkingSwins of two levels, one to three stages, any window and slicing."""
    stages = [(1, 1)]
    for _ in range(draw(st.integers(0, 2))):
        more = draw(st.sampled_from([(0, 1), (1, 1), (1, 2)]))
        stages.append(tuple(a + b for a, b in zip(stages[-1], more, strict=True)))
    return dict(
        type="ThinkingSwin",
        embed_dims=24,
        depths=(2, 2),
        num_heads=(3, 6),
        thinking_stages=tuple(stages),
        window_size=draw(st.integers(2, 5)),
        slicing=draw(st.sampled_from(["grouped", "leading"])),
        always_partition=draw(st.booleans()),
        num_classes=CLASSES,
    )


def configs(kind):
    return swins() if kind == "swin" else vits(prune=kind == "pruned")


def build(cfg, seed=0):
    """A backbone whose predictions vary from image to image."""
    torch.manual_seed(seed)
    model = torch.nn.Module()
    model.backbone = MODELS.build(cfg)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return lively(model).backbone


def images(count, height, width):
    return torch.randn(count, 3, height, width) * torch.rand(count, 1, 1, 1)


def between(entropy, quantile):
    """A threshold in the middle of two entropies, or beyond all of them."""
    values = entropy.double().unique()
    edges = [0.0, *((values[1:] + values[:-1]) / 2).tolist(), float(values[-1]) + 1]
    return edges[min(int(quantile * len(edges)), len(edges) - 1)]


def composed(total, rng):
    """All images in random order, in batches of random sizes."""
    order, cuts = rng.permutation(total), sorted(rng.integers(0, total + 1, 2))
    return [torch.from_numpy(part) for part in np.split(order, cuts) if len(part)]


# no pruning in bfloat16: rounding to eight bits decides which of two tokens survives
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("vit", torch.float32),
        ("pruned", torch.float32),
        ("swin", torch.float32),
        ("vit", torch.bfloat16),
        ("swin", torch.bfloat16),
    ],
)
@settings(max_examples=12)
@given(data=st.data(), height=side, width=side, seed=seeds, quantile=quantiles)
@torch.no_grad()
def test_batch_mates_never_change_an_answer(kind, dtype, data, height, width, seed, quantile):
    backbone = build(data.draw(configs(kind)), seed).to(dtype)
    batch = images(6, height, width).to(dtype)
    entropy = EntropyGate(1.0).entropy(backbone.forward_stages(batch)[0])
    threshold = between(entropy, quantile)
    gates = [EntropyGate(threshold), RandomGate(0.5, seed=seed)]
    for gate in gates:
        whole = backbone.think(batch, gate)
        unsure = ((whole.entropy - threshold).abs() < CLOSE[dtype]["atol"]).any(1)
        for index in composed(len(batch), np.random.default_rng(seed)):
            part = backbone.think(batch[index], gate)
            sure = ~unsure[index] if gate is gates[0] else torch.ones(len(index), dtype=torch.bool)
            index = index[sure]
            assert torch.equal(part.exit_stage[sure], whole.exit_stage[index])
            for ours, theirs in (
                (part.logits, whole.logits),
                (part.entropy, whole.entropy),
                *zip(part.features, whole.features, strict=True),
            ):
                torch.testing.assert_close(
                    ours[sure], theirs[index], equal_nan=True, **CLOSE[dtype]
                )


@pytest.mark.parametrize("head", [LINEAR, MASK], ids=["linear", "mask"])
@settings(max_examples=5)
@given(
    cfg=vits(), height=side, width=side, seed=seeds, quantile=quantiles,
    crop=st.integers(8, 40), step=st.floats(0.3, 1), at_once=st.integers(1, 7),
    gate=st.sampled_from(["EntropyGate", "PixelEntropyGate"]),
)  # fmt: skip
@torch.no_grad()
def test_neither_images_nor_windows_change_each_other(
    head, cfg, height, width, seed, quantile, crop, step, at_once, gate
):
    """A batch in sliding windows, several at once, is each image alone, window by window."""
    torch.manual_seed(seed)
    slide = dict(mode="slide", crop_size=(crop, crop), stride=(max(1, int(crop * step)),) * 2)
    model = segmentor(head=head, backbone=cfg, test_cfg={**slide, "window_batch_size": at_once})
    batch = images(3, height, width)
    model.backbone.set_gate(dict(type=gate, threshold=0.0), has_decode_head=True)
    everything = torch.stack([x.gate_entropy[:, 0] for x in model.predict(batch)])
    model.backbone.gate.threshold = between(everything, quantile)
    together = model.predict(batch)
    model.test_cfg["window_batch_size"] = 1
    for image, found in zip(batch, together, strict=True):
        alone = model.predict(image[None])[0]
        assert torch.equal(alone.exit_stage, found.exit_stage)
        torch.testing.assert_close(
            alone.seg_logits.data, found.seg_logits.data, **CLOSE[torch.float32]
        )


@settings(max_examples=12)
@given(
    data=st.data(), kind=kinds, height=side, width=side, seed=seeds,
    thresholds=st.lists(st.floats(0, math.log(CLASSES) + 0.1), min_size=2, max_size=5),
)  # fmt: skip
@torch.no_grad()
def test_higher_thresholds_stop_earlier(data, kind, height, width, seed, thresholds):
    """Image by image, and so the shares that stop at or before a stage rise with the threshold."""
    backbone = build(data.draw(configs(kind)), seed)
    batch = images(8, height, width)
    exits = [backbone.think(batch, EntropyGate(t)).exit_stage for t in sorted(thresholds)]
    for lower, higher in pairwise(exits):
        assert (higher <= lower).all()
        for stage in range(backbone.num_stages):
            assert (higher <= stage).float().mean() >= (lower <= stage).float().mean()
    never, always = (backbone.think(batch, EntropyGate(t)).exit_stage for t in (0.0, 2.0))
    assert (never == backbone.num_stages - 1).all() and not always.any()


class Loader(list):
    """Batches of any composition with the metainfo of a dataset."""

    def __init__(self, batch, data_samples, seed):
        parts = composed(len(batch), np.random.default_rng(seed))
        super().__init__(
            dict(inputs=[batch[i] for i in part], data_samples=[data_samples[i] for i in part])
            for part in parts
        )
        self.dataset = type("Data", (), {"metainfo": META, "__len__": lambda _: len(batch)})()


@settings(max_examples=12)
@given(
    data=st.data(), kind=kinds, classify=st.booleans(), height=side, width=side, seed=seeds,
    quantile=quantiles,
)  # fmt: skip
@torch.no_grad()
def test_a_sweep_is_what_single_evaluations_are(
    data, kind, classify, height, width, seed, quantile
):
    backbone = build(data.draw(configs(kind)), seed)
    batch = images(5, height, width)
    labels = torch.randint(0, CLASSES, (5, height, width))
    if classify or kind == "swin":
        model = ThinkingClassifier(backbone, data_preprocessor=dict()).eval()
        data_samples = class_samples(labels[:, 0, 0].tolist())
        batch = (batch * 60 + 128).clamp(0, 255).byte()  # its preprocessor makes them numbers
    else:
        model = segmentor(data_preprocessor=dict(type="SegDataPreProcessor"))
        model.backbone = backbone
        data_samples = samples(labels)
    backbone.set_gate(dict(type="EntropyGate", threshold=0.0))
    swept = sweep(model, Loader(batch, data_samples, seed))
    threshold = between(torch.tensor([s.predictions.entropy[0, 0] for s in swept.images]), quantile)
    model.backbone.gate.threshold = threshold
    results = [x for step in Loader(batch, data_samples, seed + 1) for x in model.test_step(step)]
    row = swept.row(threshold)
    exits = np.array([int(x.exit_stage) for x in results])
    for stage in range(model.num_stages):
        assert row[f"stage{stage}.share"] == pytest.approx(100 * np.mean(exits == stage))
    assert row["gmacs"] == pytest.approx(np.mean([x.gmacs for x in results]))
    assert row["top1" if "top1" in row else "aAcc"] == pytest.approx(100 * accuracy(results))


def accuracy(results: list[BaseDataElement]) -> float:
    """Share of right images, or right pixels of images of one size."""
    if "gt_label" in results[0]:
        return np.mean([int(x.pred_label == x.gt_label) for x in results])
    pairs = [(x.pred_sem_seg.data, x.gt_sem_seg.data) for x in results]
    return np.mean([(a == b).float().mean() for a, b in pairs])


def padded(batch, backbone):
    """Images with the zeros that the network would add, and how many: right, bottom."""
    height, width = batch.shape[-2:]
    down, across = backbone.padded_size((height, width))
    margin = (0, across - width, 0, down - height)
    return F.pad(batch, margin), margin


@settings(max_examples=8)
@given(cfg=vits(), height=side, width=side, seed=seeds)
def test_padding_changes_neither_the_valid_region_nor_the_loss(cfg, height, width, seed):
    torch.manual_seed(seed)
    model = segmentor(backbone=cfg, image_loss=dict(target="presence"))
    batch, labels = images(2, height, width), torch.randint(0, CLASSES, (2, height, width))
    larger, margin = padded(batch, model.backbone)
    with torch.no_grad():
        plain = model.predict(batch, samples(labels))
        data_samples = samples(labels)
        for sample in data_samples:
            sample.set_metainfo(dict(img_padding_size=margin))
        other = model.predict(larger, data_samples)
    for a, b in zip(plain, other, strict=True):
        assert a.seg_logits.data.shape[1:] == (height, width)
        torch.testing.assert_close(a.seg_logits.data, b.seg_logits.data, **CLOSE[torch.float32])
    losses = model.loss(batch, samples(labels))
    theirs = model.loss(larger, samples(F.pad(labels, margin, value=255)))
    for name, loss in losses.items():
        torch.testing.assert_close(loss, theirs[name], **CLOSE[torch.float32], msg=name)
