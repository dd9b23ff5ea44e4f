"""Token pruning as pure functions."""

import pytest
import torch
import torch.nn.functional as F
from helpers.contracts import close

from tvit_seg.models.pruning.functional import (
    attention_mask,
    hard_decision,
    keep_counts,
    scatter_tokens,
    take_tokens,
    top_tokens,
)


@pytest.mark.parametrize(
    ("num_tokens", "keep_ratio", "expected"),
    [
        (196, 0.8, [156, 125, 100]),
        (16, 0.8, [12, 10, 8]),
        (1024, 0.7, [716, 501, 351]),
        (7, 1, [7, 7, 7]),
        (2, 0.7, [1, 0, 0]),
    ],
)
def test_shares_are_of_the_original_number(num_tokens, keep_ratio, expected):
    assert keep_counts(num_tokens, keep_ratio, 3) == expected


def test_hard_decisions_follow_the_scores_and_have_a_gradient():
    share = torch.tensor([0.2, 0.9])
    scores = torch.stack((share, 1 - share), dim=-1).log().expand(4000, 2, 2).clone()
    scores.requires_grad_()
    decision = hard_decision(scores)
    assert decision.shape == (4000, 2, 1)
    assert set(decision.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(decision.mean(0)[:, 0], share, atol=0.03, rtol=0)
    decision.sum().backward()
    assert (scores.grad[..., 0] > 0).all()


def test_decisions_in_half_precision_are_finite():
    scores = torch.zeros(1000, 1000, 2, dtype=torch.bfloat16)
    assert torch.isfinite(hard_decision(scores)).all()


def masked_softmax(q, k, v, policy):
    """The published formula, written out."""
    count = q.shape[-2]
    a = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    itself = torch.eye(count)
    weight = policy[:, None].transpose(-1, -2) * (1 - itself) + itself
    e = (a - a.amax(-1, keepdim=True)).exp() * weight
    return (e + 1e-6 / count) / (e.sum(-1, keepdim=True) + 1e-6) @ v


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_masked_attention_is_the_published_one(soft):
    q, k, v = torch.randn(3, 2, 3, 20, 8, requires_grad=True)
    policy = torch.rand(2, 20, 1) if soft else (torch.rand(2, 20, 1) > 0.4).float()
    policy.requires_grad_()
    direction = torch.randn(2, 3, 20, 8)
    gradients = []
    for attend in (
        lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask(policy)),
        lambda: masked_softmax(q, k, v, policy),
    ):
        out = attend()
        gradients.append((out, *torch.autograd.grad((out * direction).sum(), (q, k, v, policy))))
    for mine, published in zip(*gradients, strict=True):
        close(mine, published, atol=1e-4)


def test_a_pruned_token_still_sees_itself_and_the_kept_ones():
    policy = torch.tensor([1.0, 0.0, 0.0])[None, :, None]
    weights = attention_mask(policy)[0, 0].softmax(-1)
    close(weights, torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]]), atol=1e-5)


def test_tokens_are_scattered_back():
    x, others = torch.randn(2, 3, 9, 5)
    index = top_tokens(torch.rand(3, 9), 4)
    back = scatter_tokens(take_tokens(x, index), index, others)
    for i in range(3):
        for place in range(9):
            source = x if place in index[i] else others
            assert torch.equal(back[i, place], source[i, place])
