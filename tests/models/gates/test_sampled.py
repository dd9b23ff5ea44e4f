"""Sampled exit stages of training."""

import pytest
import torch

from tvit_seg.models.gates import SampledGate
from tvit_seg.models.gates.functional import sample_stages
from tvit_seg.thinking import StageOutput


@pytest.mark.parametrize("weights", [[1, 1], [3, 1], [0, 1], [1, 0], [0.2, 0, 0.3, 0.5]])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 64])
def test_a_batch_has_its_share_of_each_stage(weights, count):
    for _ in range(20):
        stages = sample_stages(count, weights)
        assert stages.shape == (count,)
        for stage, weight in enumerate(weights):
            share = count * weight / sum(weights)
            assert abs((stages == stage).sum() - share) < 1


def test_every_place_of_the_batch_gets_every_stage_as_often_as_its_weight():
    samples = torch.stack([sample_stages(3, [1, 3]) for _ in range(4000)])  # (4000, 3)
    assert samples.float().mean(dim=0).tolist() == pytest.approx([0.75] * 3, abs=0.04)


def test_images_stop_at_their_sampled_stages():
    gate = SampledGate([1, 1, 1])
    active, counts = 9, []
    for stage in range(2):
        stop = gate.stop(StageOutput(stage, 3, torch.zeros(active, 1, 1), (), None), None)
        counts.append(int(stop.sum()))
        active -= counts[-1]
    assert counts == [3, 3]
    assert active == 3
