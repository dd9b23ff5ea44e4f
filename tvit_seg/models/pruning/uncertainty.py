"""Token-level thinking: a stage runs on the tokens that the previous one is least sure of."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ...registry import PRUNINGS
from ...utils.checks import check, check_choice, check_index, check_number
from .base import Pruning
from .functional import MEASURES, sampling_noise, split_tokens, token_uncertainty
from .tokens import AllTokens, LendingTokens

if TYPE_CHECKING:
    from ...thinking import StageOutput


@PRUNINGS.register_module()
class UncertaintyPruning(Pruning):
    """Run thinking stages on the share of the tokens that the previous stage is least sure of.

    The other tokens lend keys and values, made from their hidden tokens at the same block of the
    previous stage, so that the context remains; in the output they are the previous stage's tokens,
    zero-padded. Class token and registers always run.

    Training runs on a new random share of the tokens in each iteration, so that one model serves
    every keep ratio. There are no further weights and losses. The measure needs a decode head, so
    it works only in a :class:`~tvit_seg.ThinkingEncoderDecoder`.

    Args:
        stage_dims: Width of every thinking stage of the backbone.
        num_layers: Number of blocks of the backbone.
        keep_ratio: Share in (0, 1] of the tokens that runs at inference; 1 prunes nothing. May be
            changed at any time.
        stages: The stages to prune, counted from 0, but not stage 0; negative ones count from the
            end.
        measure: Uncertainty of decoded pixels, averaged over a token: ``'entropy'`` of all classes,
            or ``'margin'``, 1 - the difference of the two largest probabilities.
        train_ratios: Range in (0, 1] of the shares in training, uniformly distributed.
        train_all: Share of the iterations that run on all tokens.
        train_noise: Share of the others in which tokens are sampled, with probabilities
            proportional to their uncertainty, instead of taken from the top.
    """

    needs_decode_head = True

    shared_random: random.Random
    """Chooses shares; where several processes train, alike in all of them."""

    def __init__(
        self,
        stage_dims: Sequence[int],
        num_layers: int,
        keep_ratio: float = 0.4,
        stages: Sequence[int] = (-1,),
        measure: str = "entropy",
        train_ratios: Sequence[float] = (0.05, 0.8),
        train_all: float = 0.2,
        train_noise: float = 0.5,
    ):
        found = [check_index("pruning stages", stage, len(stage_dims)) for stage in stages]
        check(bool(found), "pruning stages", stages, "at least one stage")
        check(0 not in found, "pruning stages", stages, "without stage 0, before which none runs")
        super().__init__(keep_ratio, sorted({*found}))
        self.shared_random = random.Random(torch.initial_seed())
        self.measure = check_choice("pruning measure", measure, tuple(MEASURES))
        low, high = (check_number("pruning train_ratios", x, maximum=1) for x in train_ratios)
        check(0 < low <= high, "pruning train_ratios", train_ratios, "two shares, increasing")
        self.train_ratios = (low, high)
        self.train_all = check_number("pruning train_all", train_all, maximum=1)
        self.train_noise = check_number("pruning train_noise", train_noise, maximum=1)

    def borrows(self, stage: int) -> bool:
        return stage in self.stages and (self.training or self.keep_ratio < 1)

    def start(self, stage: int, previous: "StageOutput | None", grid: Sequence[int]) -> AllTokens:
        if not self.borrows(stage) or (self.training and self._happens(self.train_all)):
            return AllTokens()
        scores = token_uncertainty(previous.coarse_logits, grid, self.measure)  # (n, h w)
        if self.training:
            ratio = self.shared_random.uniform(*self.train_ratios)
            count = max(1, int(ratio * scores.shape[1]))
            if self._happens(self.train_noise):
                scores = sampling_noise(scores)
        else:
            count = self.keep_counts(grid)[0]
        return LendingTokens(previous, *split_tokens(scores, count), grid)

    def extra_repr(self) -> str:
        return f"keep_ratio={self.keep_ratio}, stages={self.stages}, measure={self.measure!r}"

    def _happens(self, share: float) -> bool:
        return self.shared_random.random() < share
