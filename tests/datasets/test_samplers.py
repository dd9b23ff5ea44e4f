"""Repeated augmentation."""

from tvit_seg.datasets import RepeatedAugSampler


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
