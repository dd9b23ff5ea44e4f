"""Random gate: the baseline for all others."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...registry import GATES
from ...utils.checks import check_integer
from .base import Gate, check_count, check_per_stage


@GATES.register_module()
class RandomGate(Gate):
    """Stop images at random.

    Args:
        p: Probability in [0, 1] that an image which reached a stage stops there; one for all stages
            or one for each but the last.
        seed: Makes the decision a function of the seed, the stage and the image's pixels, so it is
            the same in any batch, order or process. None gives a new decision each time.
    """

    def __init__(self, p: float | Sequence[float], seed: int | None = None):
        super().__init__()
        self.p = check_per_stage("RandomGate p", p)
        self.seed = None if seed is None else check_integer("RandomGate seed", seed, minimum=0)

    def check(self, backbone) -> None:
        check_count("RandomGate p", self.p, backbone)

    def stop(self, output, entropy: Tensor) -> Tensor:
        chance = self.p[output.stage] if isinstance(self.p, list) else self.p
        if self.seed is None:
            sample = torch.rand(len(output.tokens))
        else:
            sample = torch.stack([self._sample(image, output.stage) for image in output.images])
        return sample.to(output.tokens.device) < chance

    def _sample(self, image: Tensor, stage: int) -> Tensor:
        pixels = image.float().contiguous().cpu().numpy()
        rng = np.random.default_rng((self.seed, stage, zlib.crc32(pixels)))
        return torch.tensor(rng.random())

    def extra_repr(self) -> str:
        return f"p={self.p}, seed={self.seed}"
