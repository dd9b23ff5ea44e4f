"""Preprocessing of a batch for classifiers."""

import numpy as np
import pytest
import torch
from helpers.builders import class_samples
from helpers.contracts import close
from timm.data import Mixup

from tvit_seg.errors import ConfigError
from tvit_seg.models.classifiers import ClsDataPreProcessor

MIXUP = dict(mixup_alpha=0.8, cutmix_alpha=1.0)


def batch(count=4):
    images = [torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8) for _ in range(count)]
    return dict(inputs=images, data_samples=class_samples(range(count)))


@pytest.mark.parametrize("training", [False, True])
def test_normalises(training):
    data = batch()
    prepare = ClsDataPreProcessor(mean=(10, 20, 30), std=(2, 4, 5))
    inputs = prepare(data, training)["inputs"]
    assert inputs.shape == (4, 3, 8, 8)
    expected = (torch.stack(data["inputs"])[:, 1].float() - 20) / 4
    close(inputs[:, 1], expected)
    close(prepare(dict(inputs=torch.stack(data["inputs"])), training)["inputs"], inputs)


def test_mixes_as_timm_does():
    data = batch()
    plain = ClsDataPreProcessor()(data, True)["inputs"]
    np.random.seed(3)  # noqa: NPY002, timm draws from it
    expected, scores = Mixup(**MIXUP, label_smoothing=0, num_classes=5)(
        plain.clone(), torch.arange(4)
    )
    np.random.seed(3)  # noqa: NPY002
    mixed = ClsDataPreProcessor(mixup=MIXUP, num_classes=5)(data, True)
    close(mixed["inputs"], expected)
    close(torch.stack([sample.gt_score for sample in mixed["data_samples"]]), scores)
    assert [int(sample.gt_label) for sample in mixed["data_samples"]] == [0, 1, 2, 3]


def test_erases_after_normalising():
    data = batch()
    prepare = ClsDataPreProcessor(random_erasing=dict(probability=1.0, mode="const"))
    erased, plain = prepare(data, True)["inputs"], prepare(data, False)["inputs"]
    changed = erased != plain
    assert changed.any()
    assert (erased[changed] == 0).all()


def test_testing_neither_erases_nor_mixes():
    prepare = ClsDataPreProcessor(random_erasing=dict(probability=1.0), mixup=MIXUP, num_classes=5)
    same = batch(3)
    data = prepare(same, False)
    assert "gt_score" not in data["data_samples"][0]
    close(data["inputs"], ClsDataPreProcessor()(same)["inputs"])


def test_mixup_needs_an_even_batch():
    prepare = ClsDataPreProcessor(mixup=MIXUP, num_classes=5)
    with pytest.raises(ValueError, match=r"even batch, this one has 3: .*drop_last=True"):
        prepare(batch(3), True)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (dict(mixup=MIXUP), "num_classes"),
        (dict(mixup=dict(label_smoothing=0.1), num_classes=5), "mixup label_smoothing"),
        (dict(mixup=dict(prob=1.1), num_classes=3), "mixup prob"),
        (dict(mixup=dict(switch_prob="1"), num_classes=3), "mixup switch_prob"),
        (dict(random_erasing=dict(min_area="0.1")), "random_erasing min_area"),
    ],
)
def test_bad_arguments(options, field):
    with pytest.raises(ConfigError, match=f"{field} must be"):
        ClsDataPreProcessor(**options)
