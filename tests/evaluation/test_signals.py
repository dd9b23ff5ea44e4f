"""Signals and true outcomes of images, windows and tokens."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.builders import samples, segmentor

from tvit_seg.errors import ConfigError
from tvit_seg.evaluation.metrics import pixel_counts
from tvit_seg.evaluation.signals import (
    SignalRecords,
    entropy,
    learned_gain,
    margin,
    record_signals,
)
from tvit_seg.models.gates import FixedGate


class Loader(list):
    def __init__(self, batches, classes):
        super().__init__(batches)
        self.dataset = SimpleNamespace(metainfo=dict(classes=[str(i) for i in range(classes)]))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return segmentor(gate=dict(type="PixelEntropyGate", threshold=1.0))


@pytest.fixture(scope="module")
def batches(model):
    torch.manual_seed(1)
    found = []
    for _ in range(3):
        labels = torch.randint(0, model.num_classes, (2, 32, 48))
        labels[:, :4] = 255
        found.append(dict(inputs=torch.randn(2, 3, 32, 48), data_samples=samples(labels)))
    return found


@pytest.fixture(scope="module")
def records(model, batches):
    return record_signals(model, Loader(batches, model.num_classes))


def test_entropy_and_margin():
    probabilities = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0.6, 0.3, 0.1]])
    assert entropy(probabilities).tolist() == pytest.approx([0, np.log(2), 0.8979], abs=1e-4)
    assert margin(probabilities).tolist() == pytest.approx([0, 1, 0.7])


def test_counts_of_all_levels_are_the_segmentors_own(model, batches, records):
    for stage, side in ((0, "before"), (model.num_stages - 1, "after")):
        expected = 0
        for batch in batches:
            data = model.data_preprocessor(batch, False)
            own, model.backbone.gate = model.backbone.gate, FixedGate(stage)
            results = model.predict(data["inputs"], data["data_samples"])
            model.backbone.gate = own
            for result in results:
                prediction = result.pred_sem_seg.data[0]
                truth = result.gt_sem_seg.data[0]
                expected = expected + pixel_counts(prediction, truth, model.num_classes)
        for level in ("image", "window", "token"):
            found = getattr(records.ranking(level, "entropy"), side).sum(0)
            assert found == pytest.approx(expected), (stage, level)


def test_units_of_each_level(records):
    h, w = records.images[0].maps["entropy"].shape
    for level, units in (("image", 1), ("window", 4), ("token", h * w)):
        ranking = records.ranking(level, "margin")
        assert np.bincount(ranking.image).tolist() == [units] * 6
        assert ranking.costs.sum() == pytest.approx(sum(i.gmacs for i in records.images))
        means = [ranking.signal[ranking.image == i].mean() for i in range(6)]
        assert means == pytest.approx([i.values["margin"] for i in records.images], rel=1e-5)


def test_the_gates_own_signal(model, batches, records):
    measured = []
    for batch in batches:
        results = model.predict(**model.data_preprocessor(batch, False))
        measured += [float(result.gate_entropy[0]) for result in results]
    assert [i.values["gate"] for i in records.images] == pytest.approx(measured, rel=1e-4)


def test_sliding_windows_are_refused(model, batches, monkeypatch):
    monkeypatch.setattr(model, "test_cfg", dict(mode="slide"))
    with pytest.raises(ConfigError, match="mode"):
        record_signals(model, Loader(batches, model.num_classes))


def test_a_gain_that_follows_the_features_is_learned(records):
    rng = np.random.default_rng(0)

    def make(count):
        found = SignalRecords()
        for _ in range(count):
            features = rng.normal(size=12)
            right = np.array([50.0, 50 + 5 * features[3] + rng.normal()])
            counts = np.zeros((2, 1, 1, 4, 1))
            counts[:, 0, 0, 0, 0] = right
            counts[:, 0, 0, 1:, 0] = 100
            found.images.append(
                type(records.images[0])("", dict(gate=0.0), {}, features, counts, 1.0)
            )
        return found

    test = make(100)
    learned = learned_gain(make(200), test)
    assert test.ranking("image", "learned", learned).spearman() > 0.9
