"""Entropies, as pure functions of logits, all in nats; and sampling of exit stages."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def softmax_entropy(logits: Tensor, topk: int | None = None, dim: int = -1) -> Tensor:
    """Shannon entropy -sum p log p of a softmax prediction.

    Args:
        logits: Class scores; K of them along ``dim``.
        topk: Count the k largest probabilities only, renormalised to sum 1 (the softmax of the k
            largest logits). None counts all K.
        dim: The class dimension.

    Returns:
        ``logits``'s shape without ``dim``, in [0, ln k].
    """
    if topk is not None:
        logits = logits.topk(topk, dim=dim).values
    log_prob = logits.float().log_softmax(dim)
    return -(log_prob.exp() * log_prob).sum(dim)


def sigmoid_entropy(logits: Tensor, topk: int | None = None, dim: int = -1) -> Tensor:
    """Mean binary entropy of a multi-label prediction.

    Args:
        logits: One score per class along ``dim``.
        topk: Average over the k most probable classes only. None averages over all.
        dim: The class dimension.

    Returns:
        ``logits``'s shape without ``dim``, in [0, ln 2].
    """
    if topk is not None:
        logits = logits.topk(topk, dim=dim).values
    logits = logits.float()
    # H(sigmoid(x)) = softplus(x) - x sigmoid(x), finite for every x
    return (F.softplus(logits) - logits * torch.sigmoid(logits)).mean(dim)


def pixel_entropy(seg_logits: Tensor) -> Tensor:
    """Mean entropy over the pixels of decoded logits: softmax, or sigmoid for a single channel.

    Args:
        seg_logits: (B, K, H, W).

    Returns:
        (B,), in [0, ln K], or [0, ln 2] for K = 1.
    """
    measure = sigmoid_entropy if seg_logits.shape[1] == 1 else softmax_entropy
    return measure(seg_logits, dim=1).mean(dim=(1, 2))


def sample_stages(count: int, weights: Sequence[float]) -> Tensor:
    """Systematic sampling (https://en.wikipedia.org/wiki/Systematic_sampling) of exit stages.

    Args:
        count: Number of images B.
        weights: One for each stage, >= 0, not all 0; their scale does not matter.

    Returns:
        (B,) stage indices, on the CPU. Each is distributed as the weights; of the batch, every
        stage gets B times its share of the weights, rounded up or down.
    """
    bounds = torch.tensor(weights, dtype=torch.double).cumsum(0)
    points = (torch.arange(count) + torch.rand(1, dtype=torch.double)) * bounds[-1] / count
    stages = torch.bucketize(points, bounds[:-1], right=True)
    return stages[torch.randperm(count)]
