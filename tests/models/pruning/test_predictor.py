"""The network that scores tokens."""

import pytest
import torch
from helpers.contracts import close

from tvit_seg.models.pruning.predictor import ScorePredictor


def published(predictor, x, policy):
    """As the paper has it: the second half of the channels replaced by its mean."""
    x = predictor.in_conv(x)
    half = x.shape[-1] // 2
    mean = (x[..., half:] * policy).sum(1, keepdim=True) / policy.sum(1, keepdim=True)
    return predictor.out_conv(torch.cat((x[..., :half], mean.expand(-1, x.shape[1], -1)), -1))


@torch.no_grad()
def test_scores():
    predictor, x = ScorePredictor(12), torch.randn(3, 7, 12)
    policy = (torch.rand(3, 7, 1) > 0.4).float()
    close(predictor(x, policy), published(predictor, x, policy))
    close(predictor(x), published(predictor, x, torch.ones(3, 7, 1)))
    close(predictor(x).exp().sum(-1), torch.ones(3, 7))


@pytest.mark.parametrize("dim", [64, 384])
@torch.no_grad()
def test_scores_differ_from_the_start(dim):
    """Else what training draws and what inference ranks highest are not the same tokens."""
    spread = [ScorePredictor(dim)(torch.randn(2, 100, dim))[..., 0].exp().std() for _ in range(20)]
    assert torch.stack(spread).mean() > 0.2
