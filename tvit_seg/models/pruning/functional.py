"""Token pruning (DynamicViT, https://arxiv.org/abs/2106.02034) as pure functions of tensors.

A policy (B, N, 1) says of each token whether it is kept: 1, or 0 if it is pruned.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

POLICY_EPS = 1e-12
"""What a pruned token still weighs in soft attention, before normalisation."""


def keep_counts(num_tokens: int, keep_ratio: float, num_locations: int) -> list[int]:
    """How many tokens survive each pruning: the share r, r^2, ... of the original number.

    Args:
        num_tokens: Original number N of spatial tokens.
        keep_ratio: r in (0, 1].
        num_locations: How often tokens are pruned.

    Returns:
        int(N r^k) for k = 1, 2, ...
    """
    return [int(num_tokens * keep_ratio**k) for k in range(1, num_locations + 1)]


def hard_decision(scores: Tensor) -> Tensor:
    """Draws which tokens to keep: straight-through Gumbel-softmax (arXiv 1611.01144).

    Args:
        scores: (B, N, 2) log-probabilities of keeping and of pruning.

    Returns:
        (B, N, 1), 1 or 0, with the gradient of the soft sample.
    """
    return F.gumbel_softmax(scores.float(), hard=True)[..., :1]  # bfloat16 noise may be infinite


def attention_mask(policy: Tensor) -> Tensor:
    """Additive mask under which pruned keys are not attended to; every token attends to itself.

    DynamicViT weights a key by exp(a - max) M with M its policy, 1 on the diagonal. That is the
    softmax of a + log M, which fused attention takes as a mask, and its gradient in M too. Instead
    of stabilising the quotient with (... + 1e-6 / N) / (... + 1e-6), 1e-12 is added to M, so that
    the gradient at M = 0 is finite: a pruned key weighs as much as a kept one only if its attention
    logit is higher by 27.

    Args:
        policy: (B, N, 1) in [0, 1].

    Returns:
        (B, 1, N, N), for the ``attn_mask`` of ``scaled_dot_product_attention``.
    """
    itself = torch.eye(policy.shape[1], dtype=policy.dtype, device=policy.device)
    weight = policy.transpose(1, 2) * (1 - itself) + itself  # (B, N, N)
    return (weight + POLICY_EPS).log()[:, None]


def top_tokens(scores: Tensor, count: int) -> Tensor:
    """The best tokens, in their original order.

    Args:
        scores: (B, N), the higher the better.
        count: How many, at most N.

    Returns:
        (B, count) increasing indices.
    """
    return scores.topk(count, dim=1, sorted=False).indices.sort(dim=1).values


def take_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Selects tokens.

    Args:
        x: (B, N, d).
        index: (B, K).

    Returns:
        (B, K, d).
    """
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def put_tokens_back(x: Tensor, index: Tensor, others: Tensor) -> Tensor:
    """Undoes :func:`take_tokens`.

    Args:
        x: (B, K, d).
        index: (B, K), where each came from.
        others: (B, N, d) what stands in the other places.

    Returns:
        (B, N, d).
    """
    return others.scatter(1, index[..., None].expand_as(x), x.to(others.dtype))
