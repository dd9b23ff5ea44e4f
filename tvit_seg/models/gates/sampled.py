"""Gate for training: exit stages sampled for a whole batch, so that all stages are supervised."""

from collections.abc import Sequence

from torch import Tensor

from .base import Gate
from .functional import sample_stages


class SampledGate(Gate):
    """Exit stages of one batch, sampled with given weights.

    An image stops at a stage with that stage's share of the weights as its probability, so the
    average loss over a batch estimates the weighted sum of the stages' losses without bias. Serves
    one batch, and training only, since an image's exit depends on the size of its batch.

    Args:
        weights: One for each stage, >= 0, not all 0.
    """

    def __init__(self, weights: Sequence[float]):
        super().__init__()
        self.weights = weights

    def stop(self, output, entropy: Tensor) -> Tensor:
        if output.stage == 0:
            self._exits = sample_stages(len(output.tokens), self.weights)
        stop = self._exits == output.stage
        self._exits = self._exits[~stop]
        return stop
