"""The tokens of a thinking stage while its blocks run: all of them, or fewer and fewer."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .functional import attention_mask, hard_decision, put_tokens_back, take_tokens, top_tokens

if TYPE_CHECKING:
    from .dynamic import DynamicPruning


class AllTokens:
    """The tokens of a stage that is not pruned."""

    kept: Tensor | None = None
    """(n, L, h, w) which spatial tokens survive each of L prunings, 1 or 0; None if none is."""

    def before_block(self, index: int, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Prunes, where it is time to.

        Args:
            index: Index of the block that runs next.
            x: (n, K, d) the tokens so far, class token first.

        Returns:
            The tokens to run the block on, and an attention mask for it or None.
        """
        return x, None

    def restore(self, x: Tensor) -> Tensor:
        """Puts pruned tokens back at their places, as they were when they were pruned.

        Args:
            x: (n, K, d) the tokens so far, class token first.

        Returns:
            (n, 1 + h w, d).
        """
        return x

    def finish(self, x: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        """Applies the final norm and puts pruned tokens back, as the pruning says.

        Args:
            x: (n, K, d) the tokens after the last block, class token first.
            norm: Acts on each token by itself.

        Returns:
            (n, 1 + h w, d).
        """
        return norm(x)


class PrunedTokens(AllTokens):
    """The tokens of a stage that is pruned.

    Args:
        pruning: Says where and how much, and has the predictors.
        previous: (n, 1 + h w, d) output tokens of the previous stage, zero-padded to the width of
            this one; None in the first.
        grid: (h, w).
    """

    mask: Tensor | None = None
    where: Tensor | None = None
    """Says of which places the tokens so far are; None for all."""

    def __init__(self, pruning: "DynamicPruning", previous: Tensor | None, grid: Sequence[int]):
        self.pruning = pruning
        self.grid = tuple(grid)
        self.counts = pruning.keep_counts(grid)
        self.previous = previous
        self.history: list[Tensor] = []  # (n, h w) for each pruning so far
        self.snapshots: list[tuple[Tensor, Tensor | None]] = []  # tokens before each of them

    @property
    def kept(self) -> Tensor:
        return torch.stack(self.history, dim=1).unflatten(2, self.grid)  # (n, L, h, w)

    def before_block(self, index: int, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if index in self.pruning.locations:
            self.snapshots.append((x, self.where))
            x = self.prune(x, self.pruning.predictors[len(self.history)])
        return x, self.mask

    def restore(self, x: Tensor) -> Tensor:
        others = x
        for tokens, where in (*self.snapshots, (x, self.where)):
            others = tokens if where is None else self.put_back(tokens, where, others)
        return others

    def finish(self, x: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pruning.restore == "latest":
            return norm(self.restore(x))
        x = norm(x)  # the previous stage's tokens come from behind its norm
        return x if self.where is None else self.put_back(x, self.where, self.previous)

    @abstractmethod
    def prune(self, x: Tensor, predictor: nn.Module) -> Tensor:
        """Prunes tokens and adds to ``history``.

        Args:
            x: (n, K, d) the tokens so far, class token first.
            predictor: Scores spatial tokens.

        Returns:
            (n, K', d) the tokens to run on.
        """

    @staticmethod
    @abstractmethod
    def put_back(x: Tensor, where: Tensor, others: Tensor) -> Tensor:
        """Puts tokens at their places.

        Args:
            x: (n, K, d).
            where: Their places, as in ``where``.
            others: (n, 1 + h w, d) what stands in all other places.

        Returns:
            (n, 1 + h w, d).
        """


class SoftTokens(PrunedTokens):
    """For training: every token runs on, but pruned ones are not attended to.

    Decisions are random and carry a gradient to the predictors. ``where`` is the policy, (n,
    1 + h w, 1).
    """

    def prune(self, x: Tensor, predictor: nn.Module) -> Tensor:
        policy = x.new_ones(*x.shape[:2], 1) if self.where is None else self.where
        policy = policy[:, 1:]  # the class token always stays
        decision = hard_decision(predictor(x[:, 1:], policy)).to(x.dtype)
        policy = policy * decision  # (n, h w, 1)
        self.history.append(policy[..., 0])
        self.where = F.pad(policy, (0, 0, 1, 0), value=1.0)
        self.mask = attention_mask(self.where)
        return x

    @staticmethod
    def put_back(x: Tensor, where: Tensor, others: Tensor) -> Tensor:
        return where * x + (1 - where) * others


class HardTokens(PrunedTokens):
    """For inference: the tokens with the highest scores run on, the others are gone.

    ``where`` has their original places (n, K), 0 for the class token.
    """

    def prune(self, x: Tensor, predictor: nn.Module) -> Tensor:
        scores = predictor(x[:, 1:])[..., 0]
        best = F.pad(top_tokens(scores, self.counts[len(self.history)]) + 1, (1, 0))  # (n, K')
        self.where = best if self.where is None else self.where.gather(1, best)
        kept = x.new_zeros(x.shape[0], 1 + self.grid[0] * self.grid[1]).scatter(1, self.where, 1.0)
        self.history.append(kept[:, 1:])
        return take_tokens(x, best)

    @staticmethod
    def put_back(x: Tensor, where: Tensor, others: Tensor) -> Tensor:
        return put_tokens_back(x, where, others)
