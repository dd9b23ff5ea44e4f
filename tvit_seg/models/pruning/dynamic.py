"""DynamicViT (https://arxiv.org/abs/2106.02034): a thinking stage drops tokens on its way."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Integral, Real

from torch import Tensor, nn
from torch.nn import functional as F

from ...registry import PRUNINGS
from .functional import keep_counts
from .predictor import ScorePredictor
from .tokens import AllTokens, HardTokens, SoftTokens


@PRUNINGS.register_module()
class DynamicPruning(nn.Module):
    """Prunes the spatial tokens of one thinking stage by learned scores.

    With a keep ratio r the share r, r^2, ... of the original tokens is left after each location.
    In training all tokens run and pruned ones are masked; at inference they are dropped. Either
    way they come back at their places, in the maps and in the tokens that the next stage recycles.
    What a pruned token comes back as is read like any other by the decode head: ``'latest'``, from
    between the blocks, passes the final norm; ``'recycled'`` has passed it in its own stage and
    stands as it does where an image stopped there, with zeros in the channels of the wider stage.
    Maps that the final norm has not passed, those of earlier blocks, always get the latest.

    Args:
        stage_dims: Width of every thinking stage of the backbone.
        num_layers: Number of blocks of the backbone.
        locations: Blocks before which tokens are pruned, counted from 0, increasing.
        keep_ratio: Share r in (0, 1] that survives each location; 1 prunes nothing. May be changed
            at any time.
        stage: The stage to prune, counted from 0; negative counts from the end.
        restore: What a pruned token comes back as: ``'recycled'``, the output token of the
            previous stage at its place, or ``'latest'``, the token as it was when it was pruned.

    Raises:
        ValueError: If an argument is out of range; the message names it and what is allowed.
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
        self.locations = _check_locations(locations, num_layers)
        self.keep_ratio = keep_ratio
        self.stage = _check_stage(stage, len(stage_dims))
        if restore not in ("latest", "recycled"):
            raise ValueError(f"pruning restore={restore!r} must be 'latest' or 'recycled'")
        if restore == "recycled" and self.stage == 0:
            raise ValueError(
                "pruning stage=0 with restore='recycled': no stage runs before the first, so its "
                "pruned tokens could not be decoded; use restore='latest' or prune a later stage"
            )
        self.restore = restore
        self.dim = stage_dims[self.stage]
        self.predictors = nn.ModuleList(ScorePredictor(self.dim) for _ in self.locations)

    @property
    def keep_ratio(self) -> float:
        """Share of the tokens that survives each location, in (0, 1]."""
        return self._keep_ratio

    @keep_ratio.setter
    def keep_ratio(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value <= 1:
            raise ValueError(f"pruning keep_ratio={value!r} must lie in (0, 1]")
        self._keep_ratio = float(value)

    def keep_counts(self, grid: Sequence[int]) -> list[int]:
        """How many spatial tokens are left after each location.

        Args:
            grid: (h, w), rows and columns of tokens.

        Raises:
            ValueError: If none would be left.
        """
        counts = keep_counts(grid[0] * grid[1], self.keep_ratio, len(self.locations))
        if counts[-1] < 1:
            raise ValueError(
                f"an image of {grid[0]} x {grid[1]} tokens is too small to be pruned "
                f"{len(self.locations)} times with keep_ratio={self.keep_ratio}: no token would be "
                "left"
            )
        return counts

    def keep_mask_shape(self, grid: Sequence[int]) -> tuple[int, int, int] | None:
        """Shape (L, h, w) of what is told of an image's tokens; None if none is pruned.

        Args:
            grid: (h, w), rows and columns of tokens.

        Raises:
            ValueError: If no token would be left.
        """
        self.keep_counts(grid)
        return None if self.keep_ratio == 1 else (len(self.locations), *grid)

    def start(self, stage: int, tokens: Tensor | None, grid: Sequence[int]) -> AllTokens:
        """Begins the run of a thinking stage.

        Args:
            stage: Index of the stage, from 0.
            tokens: (n, 1 + h w, d_{i-1}) output of the previous stage; None in the first.
            grid: (h, w), rows and columns of tokens.

        Returns:
            What prunes before each block, and puts tokens back.
        """
        if stage != self.stage or self.keep_ratio == 1:
            return AllTokens()
        if tokens is not None:
            tokens = F.pad(tokens, (0, self.dim - tokens.shape[-1]))  # (n, 1 + h w, d_i)
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
    """Builds the pruning of a backbone from its config.

    Args:
        pruning: The config without ``stage_dims`` and ``num_layers``, or None for none.
        stage_dims: Width of every thinking stage.
        num_layers: Number of blocks.

    Raises:
        ValueError: If the config names no registered pruning.
    """
    if pruning is None:
        return None
    if not isinstance(pruning, Mapping):
        raise ValueError(f"pruning={pruning!r} must be a dict such as dict(type='DynamicPruning')")
    options = dict(pruning)
    kind = options.pop("type", None)
    cls = kind if isinstance(kind, type) else PRUNINGS.module_dict.get(str(kind).split(".")[-1])
    if cls is None:
        raise ValueError(
            f"pruning={pruning!r} must name one of {sorted(PRUNINGS.module_dict)} as its type"
        )
    return cls(stage_dims=stage_dims, num_layers=num_layers, **options)


def _check_locations(locations: Sequence[int], num_layers: int) -> tuple[int, ...]:
    if not isinstance(locations, Sequence) or isinstance(locations, str) or not locations:
        raise ValueError(f"pruning locations={locations!r} must list at least one block")
    blocks = tuple(locations)
    if not all(_is_integer(b) and 0 <= b < num_layers for b in blocks):
        raise ValueError(
            f"pruning locations={blocks} must be integers in [0, {num_layers - 1}], the blocks of "
            "the backbone"
        )
    if any(b <= a for a, b in pairwise(blocks)):
        raise ValueError(f"pruning locations={blocks} must be increasing")
    return blocks


def _check_stage(stage: int, num_stages: int) -> int:
    if not _is_integer(stage) or not -num_stages <= stage < num_stages:
        raise ValueError(
            f"pruning stage={stage!r} must be an integer in [{-num_stages}, {num_stages - 1}]"
        )
    return stage % num_stages


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
