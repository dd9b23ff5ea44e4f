"""The gate of training: exit stages drawn for a whole batch, so that all stages are supervised."""

from collections.abc import Sequence

from torch import Tensor

from .base import Gate
from .functional import draw_stages


class DrawnGate(Gate):
    """Draws exit stages for one batch, distributed as given weights.

    An image stops at a stage with that stage's share of the weights as its probability, so the
    average loss over a batch estimates the weighted sum of the stages' losses without bias. The
    draw is stratified: a batch of B images has B times the share at each stage, rounded up or
    down. Serves one batch; for training only, since an image's lot depends on its batch-mates'.

    Args:
        weights: One for each stage, >= 0, not all 0.
    """

    def __init__(self, weights: Sequence[float]):
        super().__init__()
        self.weights = weights

    def stop(self, output, entropy: Tensor) -> Tensor:
        if output.stage == 0:
            self._lots = draw_stages(len(output.tokens), self.weights)
        stop = self._lots == output.stage
        self._lots = self._lots[~stop]
        return stop
