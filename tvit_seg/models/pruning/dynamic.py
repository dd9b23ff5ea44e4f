"""DynamicViT (https://arxiv.org/abs/2106.02034): a thinking stage drops tokens between blocks."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ...registry import PRUNINGS, build_own
from ...utils.checks import check, check_choice, check_index, check_number
from .functional import keep_counts
from .predictor import ScorePredictor
from .tokens import AllTokens, HardTokens, SoftTokens


@PRUNINGS.register_module()
class DynamicPruning(nn.Module):
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

    def __init__(
        self,
        stage_dims: Sequence[int],
        num_layers: int,
        locations: Sequence[int] = (3, 6, 9),
        keep_ratio: float = 0.8,
        stage: int = -1,
        restore: str = "recycled",
    ):
        super().__init__()
        fits = isinstance(locations, Sequence) and len(locations) > 0
        check(fits, "pruning locations", locations, "a list of blocks")
        blocks = [check_index("pruning locations", block, num_layers) for block in locations]
        fits = blocks == sorted({*locations})  # negative ones are rejected, too
        check(fits, "pruning locations", locations, "increasing and >= 0")
        self.locations = tuple(blocks)
        self.keep_ratio = keep_ratio
        self.stage = check_index("pruning stage", stage, len(stage_dims))
        self.restore = check_choice("pruning restore", restore, ("latest", "recycled"))
        fits = self.stage > 0 or restore == "latest"
        check(fits, "pruning restore", restore, "'latest' in stage 0, before which no stage runs")
        self.dim = stage_dims[self.stage]
        self.predictors = nn.ModuleList(ScorePredictor(self.dim) for _ in self.locations)

    @property
    def keep_ratio(self) -> float:
        """Share of the tokens that survives each location, in (0, 1]."""
        return self._keep_ratio

    @keep_ratio.setter
    def keep_ratio(self, value: float) -> None:
        self._keep_ratio = check_number("pruning keep_ratio", value, maximum=1)
        check(value > 0, "pruning keep_ratio", value, "in (0, 1]")

    def keep_counts(self, grid: Sequence[int]) -> list[int]:
        """Numbers of spatial tokens left after each location, of a grid (h, w).

        Raises:
            ConfigError: If no token would be left.
        """
        counts = keep_counts(grid[0] * grid[1], self.keep_ratio, len(self.locations))
        times = f"large enough to be pruned {len(self.locations)} times with {self.keep_ratio:g}"
        check(counts[-1] >= 1, "grid of tokens", tuple(grid), times)
        return counts

    def keep_mask_shape(self, grid: Sequence[int]) -> tuple[int, int, int] | None:
        """Shape (L, h, w) of the keep masks of an image, of a grid (h, w); None without pruning.

        Raises:
            ConfigError: If no token would be left.
        """
        self.keep_counts(grid)
        return None if self.keep_ratio == 1 else (len(self.locations), grid[0], grid[1])

    def start(self, stage: int, tokens: Tensor | None, grid: Sequence[int]) -> AllTokens:
        """Begin the run of a thinking stage.

        Args:
            stage: Index of the stage, from 0.
            tokens: (n, P + h w, d_{i-1}) output of the previous stage, those of the P prefix tokens
                (class token, registers) first; None in the first.
            grid: (h, w), rows and columns of tokens.
        """
        if stage != self.stage or self.keep_ratio == 1:
            return AllTokens()
        if tokens is not None:
            tokens = F.pad(tokens, (0, self.dim - tokens.shape[-1]))  # (n, P + h w, d_i)
        kind = SoftTokens if self.training else HardTokens
        return kind(self, tokens, grid)

    def extra_repr(self) -> str:
        return (
            f"locations={self.locations}, keep_ratio={self.keep_ratio}, stage={self.stage}, "
            f"restore={self.restore!r}"
        )


def build_pruning(
    pruning: dict | None, stage_dims: Sequence[int], num_layers: int
) -> nn.Module | None:
    """Build the pruning of a backbone from its config.

    Args:
        pruning: The config without ``stage_dims`` and ``num_layers``, or None for none.
        stage_dims: Width of every thinking stage.
        num_layers: Number of blocks.

    Raises:
        ConfigError: If the config names no registered pruning.
    """
    if pruning is None:
        return None
    return build_own(PRUNINGS, "pruning", pruning, stage_dims=stage_dims, num_layers=num_layers)
