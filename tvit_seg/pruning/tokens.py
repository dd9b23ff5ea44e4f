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
        """Puts pruned tokens back at their places.

        Args:
            x: (n, K, d) the tokens so far, class token first.

        Returns:
            (n, 1 + h w, d).
        """
        return x

    def finish(self, x: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        """Applies the final norm and puts pruned tokens back.

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

    def __init__(self, pruning: "DynamicPruning", previous: Tensor | None, grid: Sequence[int]):
        self.pruning = pruning
        self.grid = tuple(grid)
        self.counts = pruning.keep_counts(grid)
        self.others = previous if pruning.restore == "recycled" else None  # in place of pruned ones
        self.history: list[Tensor] = []  # (n, h w) for each pruning so far

    @property
    def kept(self) -> Tensor:
        return torch.stack(self.history, dim=1).unflatten(2, self.grid)  # (n, L, h, w)

    def before_block(self, index: int, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if index in self.pruning.locations:
            if self.pruning.restore == "latest":
                self.others = self.restore(x)
            x = self.prune(x, self.pruning.predictors[len(self.history)])
        return x, self.mask

    def finish(self, x: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pruning.restore == "recycled":
            return self.restore(norm(x))  # the others come from behind the norm
        return norm(self.restore(x))

    @abstractmethod
    def prune(self, x: Tensor, predictor: nn.Module) -> Tensor:
        """Prunes tokens and adds to ``history``.

        Args:
            x: (n, K, d) the tokens so far, class token first.
            predictor: Scores spatial tokens.

        Returns:
            (n, K', d) the tokens to run on.
        """


class SoftTokens(PrunedTokens):
    """For training: every token runs on, but pruned ones are not attended to.

    Decisions are random and carry a gradient to the predictors.
    """

    policy: Tensor | None = None  # (n, 1 + h w, 1)

    def prune(self, x: Tensor, predictor: nn.Module) -> Tensor:
        policy = x.new_ones(*x.shape[:2], 1) if self.policy is None else self.policy
        policy = policy[:, 1:]  # the class token always stays
        policy = policy * hard_decision(predictor(x[:, 1:], policy))  # (n, h w, 1)
        self.history.append(policy[..., 0])
        self.policy = F.pad(policy, (0, 0, 1, 0), value=1.0)
        self.mask = attention_mask(self.policy)
        return x

    def restore(self, x: Tensor) -> Tensor:
        if self.policy is None:
            return x
        return self.policy * x + (1 - self.policy) * self.others


class HardTokens(PrunedTokens):
    """For inference: the tokens with the highest scores run on, the others are gone."""

    index: Tensor | None = None  # (n, K) original places of the tokens so far, the class token's 0

    def prune(self, x: Tensor, predictor: nn.Module) -> Tensor:
        scores = predictor(x[:, 1:])[..., 0]
        best = F.pad(top_tokens(scores, self.counts[len(self.history)]) + 1, (1, 0))  # (n, K')
        self.index = best if self.index is None else self.index.gather(1, best)
        kept = x.new_zeros(x.shape[0], 1 + self.grid[0] * self.grid[1]).scatter(1, self.index, 1.0)
        self.history.append(kept[:, 1:])
        return take_tokens(x, best)

    def restore(self, x: Tensor) -> Tensor:
        return x if self.index is None else put_tokens_back(x, self.index, self.others)
