"""Repeated augmentation, and the random states of loading processes."""

import pytest
import torch
from classification import config, image_folder
from mmengine.runner import Runner

from tvit_seg.datasets import RepeatedAugSampler


@pytest.fixture
def root(tmp_path):
    """An image folder."""
    return image_folder(tmp_path / "images")


def test_augmentation_differs_between_epochs_and_follows_the_seed(root):
    cfg = config(root, root.parent)
    cfg.train_dataloader.dataset.transform = dict(
        input_size=8, is_training=True, auto_augment="rand-m9-mstd0.5-inc1"
    )
    cfg.train_dataloader.sampler.shuffle = False
    cfg.train_dataloader.update(num_workers=1, worker_init_fn=dict(type="keep_worker_seed"))
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)

    def epoch():
        return torch.cat([torch.stack(batch["inputs"]) for batch in loader])

    torch.manual_seed(0)
    first, second = epoch(), epoch()
    torch.manual_seed(0)
    assert torch.equal(epoch(), first)
    assert not torch.equal(first, second)


def build(monkeypatch, rank=0, world=1, **kwargs):
    monkeypatch.setattr("tvit_seg.datasets.samplers.get_dist_info", lambda: (rank, world))
    return RepeatedAugSampler(range(600), selected_round=0, **kwargs)


def test_images_come_several_times(monkeypatch):
    indices = list(build(monkeypatch, seed=0))
    assert len(indices) == 600
    assert len(set(indices)) == 200
    assert indices[0] == indices[1] == indices[2]


def test_processes_share_an_image(monkeypatch):
    parts = [list(build(monkeypatch, rank, 3, seed=0)) for rank in range(3)]
    assert parts[0] == parts[1] == parts[2]
    assert len(parts[0]) == 200


def test_order_follows_seed_and_epoch(monkeypatch):
    sampler = build(monkeypatch, seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(build(monkeypatch, seed=5)) != first


def test_from_a_config(root):
    sampler = dict(type="RepeatedAugSampler", num_repeats=2)
    cfg = config(root, root.parent, **{"train_dataloader.sampler": sampler})
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=3)
    assert loader.sampler.seed == 3
    assert len(loader) == 3
