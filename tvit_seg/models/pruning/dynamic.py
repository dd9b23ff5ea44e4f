"""DynamicViT (https://arxiv.org/abs/2106.02034): a thinking stage drops tokens between blocks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from ...registry import PRUNINGS
from ...utils.checks import check, check_choice, check_index
from .base import Pruning
from .functional import widen
from .predictor import ScorePredictor
from .tokens import AllTokens, HardTokens, SoftTokens

if TYPE_CHECKING:
    from ...thinking import StageOutput


@PRUNINGS.register_module()
class DynamicPruning(Pruning):
    """Prune the spatial tokens of one thinking stage by learned scores.

    With a keep ratio r, the shares r, r^2, ... of the original tokens remain after each location.
    In training all tokens run and pruned ones are masked; at inference they are dropped. In both
    cases they are scattered back, into the maps and into the tokens that the next stage recycles.
    ``'latest'`` values, from between the blocks, pass the final norm; ``'recycled'`` ones have
    passed it in their own stage and are zero in the channels of the wider stage, like an image
    that exits there. Maps of earlier blocks, without the final norm, always get the latest value.

    Args:
        stage_dims: Width of every thinking stage of the backbone.
        num_layers: Number of blocks of the backbone.
        locations: Blocks before which tokens are pruned, counted from 0, increasing.
        keep_ratio: Share r in (0, 1] that survives each location; 1 prunes nothing. May be changed
            at any time.
        stage: The stage to prune, counted from 0; negative counts from the end.
        restore: Value that is scattered back for a pruned token: ``'recycled'``, the output token
            of the previous stage at its position, or ``'latest'``, its own when it was pruned.
    """

    trains_predictors = True

    def __init__(
        self,
        stage_dims: Sequence[int],
        num_layers: int,
        locations: Sequence[int] = (3, 6, 9),
        keep_ratio: float = 0.8,
        stage: int = -1,
        restore: str = "recycled",
    ):
        super().__init__(keep_ratio, [check_index("pruning stage", stage, len(stage_dims))])
        fits = isinstance(locations, Sequence) and len(locations) > 0
        check(fits, "pruning locations", locations, "a list of blocks")
        blocks = [check_index("pruning locations", block, num_layers) for block in locations]
        fits = blocks == sorted({*locations})  # negative ones are rejected, too
        check(fits, "pruning locations", locations, "increasing and >= 0")
        self.locations = tuple(blocks)
        self.num_steps = len(blocks)
        self.stage = self.stages[0]
        self.restore = check_choice("pruning restore", restore, ("latest", "recycled"))
        fits = self.stage > 0 or restore == "latest"
        check(fits, "pruning restore", restore, "'latest' in stage 0, before which no stage runs")
        self.dim = stage_dims[self.stage]
        self.predictors = nn.ModuleList(ScorePredictor(self.dim) for _ in self.locations)

    def start(self, stage: int, previous: "StageOutput | None", grid: Sequence[int]) -> AllTokens:
        if stage != self.stage or self.keep_ratio == 1:
            return AllTokens()
        tokens = None if previous is None else widen(previous.tokens, self.dim)
        kind = SoftTokens if self.training else HardTokens
        return kind(self, tokens, grid)

    def extra_repr(self) -> str:
        return (
            f"locations={self.locations}, keep_ratio={self.keep_ratio}, stage={self.stage}, "
            f"restore={self.restore!r}"
        )
