"""Base class of token prunings, and building one from its config."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import nn

from ...registry import PRUNINGS, build_own
from ...utils.checks import check, check_number
from .functional import keep_counts
from .tokens import AllTokens

if TYPE_CHECKING:
    from ...thinking import StageOutput


class Pruning(nn.Module, ABC):
    """Choice of the spatial tokens that a thinking stage runs on.

    Args:
        keep_ratio: Share in (0, 1] of the tokens that is kept; 1 prunes nothing. May be changed at
            any time.
        stages: The stages that are pruned, counted from 0.

    Attributes:
        num_steps: Number of successive prunings in such a stage.
    """

    num_steps = 1

    needs_decode_head = False
    """Reads decoded pixels, and so works in a full segmentor only."""

    trains_predictors = False
    """Has predictors, which :class:`~tvit_seg.models.pruning.PruningLoss` trains."""

    given: Mapping = {}
    """The config that it was built from."""

    def __init__(self, keep_ratio: float, stages: Sequence[int]):
        super().__init__()
        self.keep_ratio = keep_ratio
        self.stages = tuple(stages)

    @property
    def keep_ratio(self) -> float:
        """Share of the tokens that survives each pruning, in (0, 1]."""
        return self._keep_ratio

    @keep_ratio.setter
    def keep_ratio(self, value: float) -> None:
        self._keep_ratio = check_number("pruning keep_ratio", value, maximum=1)
        check(value > 0, "pruning keep_ratio", value, "in (0, 1]")

    @property
    def config(self) -> dict:
        """Config that builds this pruning with its present ``keep_ratio``."""
        return {**self.given, "keep_ratio": self.keep_ratio}

    def keep_counts(self, grid: Sequence[int]) -> list[int]:
        """Numbers of spatial tokens left after each pruning of a stage, of a grid (h, w).

        Raises:
            ConfigError: If no token would be left.
        """
        counts = keep_counts(grid[0] * grid[1], self.keep_ratio, self.num_steps)
        times = f"large enough to be pruned {self.num_steps} times with {self.keep_ratio:g}"
        check(counts[-1] >= 1, "grid of tokens", tuple(grid), times)
        return counts

    def keep_mask_shape(self, grid: Sequence[int]) -> tuple[int, int, int] | None:
        """Shape (L, h, w) of the keep masks of an image, of a grid (h, w); None without pruning.

        Raises:
            ConfigError: If no token would be left.
        """
        self.keep_counts(grid)
        masks = self.num_steps * len(self.stages)
        return None if self.keep_ratio == 1 else (masks, grid[0], grid[1])

    def borrows(self, stage: int) -> bool:
        """Return whether a stage reads decoded logits and hidden tokens of the one before."""
        return False

    @abstractmethod
    def start(self, stage: int, previous: "StageOutput | None", grid: Sequence[int]) -> AllTokens:
        """Begin the run of a thinking stage.

        Args:
            stage: Index of the stage, from 0.
            previous: Output of the previous stage for these images; None in the first.
            grid: (h, w), rows and columns of tokens.
        """


def build_pruning(
    pruning: Mapping | None,
    stage_dims: Sequence[int],
    num_layers: int,
    has_decode_head: bool = False,
) -> Pruning | None:
    """Build the pruning of a backbone from its config.

    Args:
        pruning: The config without ``stage_dims`` and ``num_layers``, or None for none.
        stage_dims: Width of every thinking stage.
        num_layers: Number of blocks.
        has_decode_head: Allows prunings that read decoded pixels.

    Raises:
        ConfigError: If the config names no registered pruning, or one that needs a decode head
            where there is none.
    """
    if pruning is None:
        return None
    built = build_own(PRUNINGS, "pruning", pruning, stage_dims=stage_dims, num_layers=num_layers)
    built.given = dict(pruning)
    fits = has_decode_head or not built.needs_decode_head
    allowed = "one that needs no decode head; a ThinkingEncoderDecoder takes others"
    check(fits, "pruning", type(built).__name__, allowed)
    return built
