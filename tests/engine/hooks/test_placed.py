"""What is drawn for a sample follows its place, whoever loads it."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from helpers.classification import config, image_folder
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import Dataset

from tvit_seg.engine import ThinkingRunner
from tvit_seg.engine.hooks.placed import Placed, SeededDataset, numbering


class Draws(Dataset):
    """Says what each source of random numbers gives."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        assert type(index) is int
        return index, random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002


def test_a_place_gives_the_same_numbers_at_any_time():
    data = SeededDataset(Draws())
    first = data[Placed(3, (0, 0, 0, 7))]
    assert first[0] == 3
    assert data[Placed(3, (0, 0, 0, 7))] == first
    for key in ((1, 0, 0, 7), (0, 1, 0, 7), (0, 0, 1, 7), (0, 0, 0, 8)):
        other = data[Placed(3, key)]
        assert not set(first[1:]) & set(other[1:])
    assert data[3] != data[3]


def test_indices_survive_the_way_to_a_loading_process():
    placed = pickle.loads(pickle.dumps(Placed(3, (0, 1, 2, 3))))
    assert placed == 3
    assert placed.key == (0, 1, 2, 3)
    assert copy.deepcopy(placed).key == (0, 1, 2, 3)


def test_epochs_begin_anew():
    sampler = numbering(DefaultSampler)(range(4), seed=5)
    assert [index.key for index in sampler] == [(5, 0, 0, place) for place in range(4)]
    sampler.set_epoch(2)
    assert [index.key for index in sampler] == [(5, 0, 2, place) for place in range(4)]
    assert isinstance(sampler, DefaultSampler)


@pytest.mark.skipif(not hasattr(InfiniteSampler, "skip"), reason="this mmengine reloads batches")
def test_skipped_places_count():
    whole = iter(numbering(InfiniteSampler)(range(9), seed=1))
    sampler = numbering(InfiniteSampler)(range(9), seed=1)
    sampler.skip(20)
    resumed = iter(sampler)
    expected = [next(whole) for _ in range(25)][20:]
    found = [next(resumed) for _ in range(5)]
    assert found == expected
    assert [index.key for index in found] == [index.key for index in expected]


def test_loading_processes_make_no_difference(tmp_path):
    cfg = config(image_folder(tmp_path / "images"), tmp_path)
    cfg.train_dataloader.dataset.transform = dict(
        input_size=8, is_training=True, auto_augment="rand-m9-mstd0.5-inc1"
    )
    cfg.train_dataloader.sampler.shuffle = False

    def epochs(workers, seed=0):
        cfg.train_dataloader.num_workers = workers
        loader = ThinkingRunner.build_dataloader(cfg.train_dataloader, seed=seed)
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            yield torch.cat([torch.stack(batch["inputs"]) for batch in loader])

    (first, second), (again, _), (other, _) = epochs(0), epochs(2), epochs(0, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)
