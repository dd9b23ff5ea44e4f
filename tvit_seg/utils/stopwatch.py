"""Time that work on a device takes."""

from collections.abc import Callable
from functools import partial
from time import perf_counter

import torch


class Stopwatch:
    """Laps of work on a device.

    Args:
        device: Where the work runs; it is waited for before each look at the clock.
    """

    def __init__(self, device: str | torch.device = "cpu"):
        self._wait = waiter(device)
        self._start = self._now()

    def lap(self) -> float:
        """Seconds since the last lap, or the start."""
        start, self._start = self._start, self._now()
        return self._start - start

    def _now(self) -> float:
        if self._wait is not None:
            self._wait()
        return perf_counter()


def waiter(device: str | torch.device) -> Callable[[], object] | None:
    """What waits until a device has finished its work; None where nothing needs to."""
    device = torch.device(device)
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else None
