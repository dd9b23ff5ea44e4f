"""A gate that draws lots: the baseline for real gates."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...registry import GATES
from .base import Gate


@GATES.register_module()
class RandomGate(Gate):
    """Stops images at random.

    Args:
        p: Probability in [0, 1] that an image which reached a stage stops there; one for all stages
            or one for each but the last.
        seed: With a seed the lot of an image is a function of the seed and its pixels, the same in
            any batch, order or process. None draws afresh each time.

    Raises:
        ValueError: If a probability is outside [0, 1] or the seed is negative.
    """

    def __init__(self, p: float | Sequence[float], seed: int | None = None):
        super().__init__()
        self.p = [float(value) for value in p] if isinstance(p, Sequence) else float(p)
        values = self.p if isinstance(self.p, list) else [self.p]
        if not all(0 <= value <= 1 for value in values):
            raise ValueError(f"RandomGate p={p!r} must lie in [0, 1]")
        if seed is not None and (not isinstance(seed, int) or seed < 0):
            raise ValueError(f"RandomGate seed={seed!r} must be None or an integer >= 0")
        self.seed = seed

    def check(self, backbone) -> None:
        if isinstance(self.p, list) and len(self.p) != backbone.num_stages - 1:
            raise ValueError(
                f"RandomGate p={self.p} has {len(self.p)} probabilities; "
                f"{backbone.num_stages} thinking stages take {backbone.num_stages - 1}"
            )

    def stop(self, output, entropy: Tensor) -> Tensor:
        chance = self.p[output.stage] if isinstance(self.p, list) else self.p
        if self.seed is None:
            lots = torch.rand(len(output.tokens))
        else:
            lots = torch.stack([self._lot(image, output.stage) for image in output.images])
        return lots.to(output.tokens.device) < chance

    def _lot(self, image: Tensor, stage: int) -> Tensor:
        pixels = image.float().contiguous().cpu().numpy()
        rng = np.random.default_rng((self.seed, stage, zlib.crc32(pixels)))
        return torch.tensor(rng.random())

    def extra_repr(self) -> str:
        return f"p={self.p}, seed={self.seed}"
