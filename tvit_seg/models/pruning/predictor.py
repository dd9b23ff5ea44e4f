"""Small network that scores tokens."""

import torch.nn.functional as F
from torch import Tensor, nn


class ScorePredictor(nn.Module):
    """Score spatial tokens, each by itself and by the mean of all kept ones.

    Initial weights are large enough that scores differ. With a transformer's small ones all tokens
    score alike at first, so training drops them at random, and the blocks are not trained on sets
    of high-scoring tokens as at inference.

    Args:
        dim: Width d of the tokens.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.in_conv = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(dim, dim // 2),
            nn.GELU(),
            nn.Linear(dim // 2, dim // 4),
            nn.GELU(),
            nn.Linear(dim // 4, 2),
            nn.LogSoftmax(dim=-1),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=2 / layer.in_features**0.5)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, policy: Tensor | None = None) -> Tensor:
        """Log-probabilities (B, N, 2) of keeping and of pruning.

        Args:
            x: (B, N, d) spatial tokens.
            policy: (B, N, 1) of the earlier prunings; None for all kept.
        """
        own, shared = self.in_conv(x).tensor_split(2, dim=-1)  # (B, N, d / 2) each
        if policy is None:
            mean = shared.mean(dim=1, keepdim=True)  # (B, 1, d / 2)
        else:
            kept = policy.sum(dim=1, keepdim=True).clamp(min=1)  # all may be pruned, by chance
            mean = (shared * policy).sum(dim=1, keepdim=True) / kept
        # the first layer on (own, mean), without computing the mean's part for every token
        first, *rest = self.out_conv
        from_own, from_mean = first.weight.split((own.shape[-1], mean.shape[-1]), dim=1)
        x = F.linear(own, from_own, first.bias) + F.linear(mean, from_mean)
        for layer in rest:
            x = layer(x)
        return x  # (B, N, 2)
