"""Token pruning (DynamicViT, https://arxiv.org/abs/2106.02034) as pure functions of tensors.

A policy (B, N, 1) is 1 for each token that is kept and 0 for those that are pruned.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..gates.functional import sigmoid_entropy, softmax_entropy

POLICY_EPS = 1e-12
"""Weight of a pruned token in soft attention, before normalisation."""


def keep_counts(num_tokens: int, keep_ratio: float, num_locations: int) -> list[int]:
    """Numbers of tokens that survive each pruning: int(N r^k) of N for k = 1, 2, ...

    Args:
        num_tokens: Original number N of spatial tokens.
        keep_ratio: r in (0, 1].
        num_locations: Number of prunings.
    """
    return [int(num_tokens * keep_ratio**k) for k in range(1, num_locations + 1)]


def hard_decision(scores: Tensor) -> Tensor:
    """Sample the tokens to keep: straight-through Gumbel-softmax (arXiv 1611.01144).

    Args:
        scores: (B, N, 2) log-probabilities of keeping and of pruning.

    Returns:
        (B, N, 1), 1 or 0, with the gradient of the soft sample.
    """
    return F.gumbel_softmax(scores.float(), hard=True)[..., :1]  # bfloat16 noise may be infinite


def attention_mask(policy: Tensor) -> Tensor:
    """Additive mask that excludes pruned keys; every token attends to itself.

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
    """Increasing indices (B, count) of the tokens with the highest scores (B, N)."""
    return scores.topk(count, dim=1, sorted=False).indices.sort(dim=1).values


def take_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Select tokens (B, K, d) of x (B, N, d) by index (B, K)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def scatter_tokens(x: Tensor, index: Tensor, others: Tensor) -> Tensor:
    """Write tokens x (B, K, d) over others (B, N, d) at index (B, K): undo :func:`take_tokens`."""
    return others.scatter(1, index[..., None].expand_as(x), x.to(others.dtype))


def widen(x: Tensor, width: int) -> Tensor:
    """Zero-pad tokens (B, N, d) to (B, N, width)."""
    return F.pad(x, (0, width - x.shape[-1]))


def pixel_margin(seg_logits: Tensor) -> Tensor:
    """1 - the difference of the two largest probabilities (B, H, W) of logits (B, K, H, W)."""
    logits = seg_logits.float()
    if logits.shape[1] == 1:
        return 1 - (2 * logits[:, 0].sigmoid() - 1).abs()
    first, second = logits.softmax(dim=1).topk(2, dim=1).values.unbind(1)
    return 1 - (first - second)


def pixel_entropies(seg_logits: Tensor) -> Tensor:
    """Entropy (B, H, W) in nats of logits (B, K, H, W): softmax, or sigmoid for K = 1."""
    measure = sigmoid_entropy if seg_logits.shape[1] == 1 else softmax_entropy
    return measure(seg_logits, dim=1)


MEASURES = {"entropy": pixel_entropies, "margin": pixel_margin}
"""Uncertainties of pixels."""


def token_uncertainty(coarse_logits: Tensor, grid: Sequence[int], measure: str) -> Tensor:
    """Mean uncertainty of the pixels of each token.

    Args:
        coarse_logits: (B, K, H', W').
        grid: (h, w), rows and columns of tokens.
        measure: Out of ``MEASURES``.

    Returns:
        (B, h w), >= 0.
    """
    scores = MEASURES[measure](coarse_logits)
    if scores.shape[1:] != torch.Size(grid):
        scores = F.adaptive_avg_pool2d(scores, grid)
    return scores.flatten(1)


def sampling_noise(scores: Tensor) -> Tensor:
    """Perturb scores (B, N) >= 0 so that the highest ones are a sample without replacement.

    Tokens are then chosen with probabilities proportional to their scores (Gumbel-top-k,
    https://arxiv.org/abs/1903.06059).

    Returns:
        (B, N).
    """
    uniform = torch.rand_like(scores).clamp(min=torch.finfo(scores.dtype).tiny)
    return scores.clamp(min=1e-6).log() - (-uniform.log()).log()


def split_tokens(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Indices (B, count) of the tokens with the highest scores (B, N), and (B, N - count)."""
    order = scores.topk(scores.shape[1], dim=1).indices
    return order[:, :count], order[:, count:]
