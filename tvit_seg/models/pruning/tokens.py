"""Tokens of a thinking stage between its blocks, without or with pruning."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .functional import attention_mask, hard_decision, scatter_tokens, take_tokens, top_tokens

if TYPE_CHECKING:
    from .dynamic import DynamicPruning


class AllTokens:
    """Tokens of a stage without pruning.

    P prefix tokens come first, the class token and registers, then the spatial ones, N = P + h w.
    """

    keep_mask: Tensor | None = None
    """(n, L, h, w) spatial tokens that survive each of L prunings, 1 or 0; None without pruning."""

    def before_block(self, index: int, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Prune tokens (n, K, d) if a pruning is due before a block.

        Returns:
            The tokens to run the block on, and an attention mask for it or None.
        """
        return x, None

    def positions(self, rope: Tensor | None) -> Tensor | None:
        """Rows (..., K, 2 head_dim) of the current tokens in a rotary table (N, 2 head_dim)."""
        return rope

    def scatter_back(self, x: Tensor) -> Tensor:
        """All tokens (n, N, d), from current (n, K, d) and latest values of pruned ones."""
        return x

    def finish(self, x: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply the final norm, which acts on each token by itself, and scatter back.

        Args:
            x: (n, K, d) after the last block.

        Returns:
            (n, N, d).
        """
        return norm(x)


class PrunedTokens(AllTokens):
    """Tokens of a stage with pruning.

    Args:
        pruning: Locations, keep ratio and predictors.
        previous: (n, N, d) output tokens of the previous stage, zero-padded to the width of this
            one; None in the first.
        grid: (h, w).
    """

    attn_mask: Tensor | None = None
    survivors: Tensor | None = None
    """Which of all tokens the current ones are, in the subclass's notation; None for all."""

    def __init__(self, pruning: "DynamicPruning", previous: Tensor | None, grid: Sequence[int]):
        self.pruning = pruning
        self.grid = tuple(grid)
        self.prefix = 0
        self.counts = pruning.keep_counts(grid)
        self.previous = previous
        self.history: list[Tensor] = []  # (n, h w) keep mask of each pruning so far
        self.snapshots: list[tuple[Tensor, Tensor | None]] = []  # tokens before each of them

    @property
    def keep_mask(self) -> Tensor:
        return torch.stack(self.history, dim=1).unflatten(2, self.grid)  # (n, L, h, w)

    def before_block(self, index: int, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if index == 0:
            self.prefix = x.shape[1] - self.grid[0] * self.grid[1]
        if index in self.pruning.locations:
            self.snapshots.append((x, self.survivors))
            x = self.prune(x, self.pruning.predictors[len(self.history)])
        return x, self.attn_mask

    def scatter_back(self, x: Tensor) -> Tensor:
        others = x
        for tokens, survivors in (*self.snapshots, (x, self.survivors)):
            others = tokens if survivors is None else self.scatter(tokens, survivors, others)
        return others

    def finish(self, x: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pruning.restore == "latest":
            return norm(self.scatter_back(x))
        x = norm(x)  # the previous stage's tokens have passed the norm
        return x if self.survivors is None else self.scatter(x, self.survivors, self.previous)

    @abstractmethod
    def prune(self, x: Tensor, predictor: nn.Module) -> Tensor:
        """Prune tokens (n, K, d) by a predictor's scores; record the keep mask and survivors."""

    @staticmethod
    @abstractmethod
    def scatter(x: Tensor, survivors: Tensor, others: Tensor) -> Tensor:
        """Write tokens (n, K, d) to their positions among others (n, N, d)."""


class SoftTokens(PrunedTokens):
    """For training: every token keeps running, but pruned ones are masked as keys.

    Decisions are random and carry a gradient to the predictors. ``survivors`` is the policy
    (n, N, 1).
    """

    def prune(self, x: Tensor, predictor: nn.Module) -> Tensor:
        policy = x.new_ones(*x.shape[:2], 1) if self.survivors is None else self.survivors
        policy = policy[:, self.prefix :]  # the others always stay
        decision = hard_decision(predictor(x[:, self.prefix :], policy)).to(x.dtype)
        policy = policy * decision  # (n, h w, 1)
        self.history.append(policy[..., 0])
        self.survivors = F.pad(policy, (0, 0, self.prefix, 0), value=1.0)
        self.attn_mask = attention_mask(self.survivors)
        return x

    @staticmethod
    def scatter(x: Tensor, survivors: Tensor, others: Tensor) -> Tensor:
        return survivors * x + (1 - survivors) * others


class HardTokens(PrunedTokens):
    """For inference: only the tokens with the highest scores keep running.

    ``survivors`` has their original indices (n, K), the first P for prefix tokens.
    """

    def prune(self, x: Tensor, predictor: nn.Module) -> Tensor:
        scores = predictor(x[:, self.prefix :])[..., 0]
        scores = F.pad(scores, (self.prefix, 0), value=torch.inf)  # the others always stay
        best = top_tokens(scores, self.prefix + self.counts[len(self.history)])  # (n, K')
        self.survivors = best if self.survivors is None else self.survivors.gather(1, best)
        mask = x.new_zeros(x.shape[0], self.prefix + self.grid[0] * self.grid[1])
        self.history.append(mask.scatter(1, self.survivors, 1.0)[:, self.prefix :])
        return take_tokens(x, best)

    def positions(self, rope: Tensor | None) -> Tensor | None:
        if rope is None or self.survivors is None:
            return rope
        return rope[self.survivors][:, None]  # (n, 1, K, 2 head_dim)

    @staticmethod
    def scatter(x: Tensor, survivors: Tensor, others: Tensor) -> Tensor:
        return scatter_tokens(x, survivors, others)
