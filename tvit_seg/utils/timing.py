"""Time measurement, robust on shared machines: contestants alternate."""

import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import torch

Contestants = dict[str, Callable[[], object]]


class Stopwatch:
    """Lap times, in seconds, of work on a device.

    Args:
        device: Device that runs the work; it is synchronised before the clock is read.
        clock: Returns seconds. ``time.process_time``, the processor time of this process alone,
            stays steady where other jobs take turns on the cores (then use one thread: waiting
            threads count too).
    """

    def __init__(
        self, device: str | torch.device = "cpu", clock: Callable[[], float] = perf_counter
    ):
        self._device = torch.device(device)
        self._clock = clock
        self._start = self._now()

    def lap(self) -> float:
        """Return the time since the last lap, or the start."""
        start, self._start = self._start, self._now()
        return self._start - start

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()


def alternate(
    contestants: Contestants,
    rounds: int,
    warmup: int = 1,
    device: str | torch.device = "cpu",
    tick: Callable[[], object] | None = None,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, list[float]]:
    """Time each contestant once per round, so that disturbances affect all alike.

    ``tick`` is called after each round, including the warm-up; for ``device`` and ``clock`` see
    :class:`Stopwatch`.

    Returns:
        For each contestant the seconds of each round after the warm-up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for index in range(-warmup, rounds):
        # back and forth, so that no contestant always follows the same neighbour
        turn = list(contestants.items())[:: 1 if index % 2 == 0 else -1]
        for name, run in turn:
            watch = Stopwatch(device, clock)
            run()
            elapsed = watch.lap()
            if index >= 0:
                seconds[name].append(elapsed)
        if tick is not None:
            tick()
    return seconds


def spread(values: list[float]) -> float:
    """Interquartile range; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return high - low


def compare(
    seconds: Mapping[str, list[float]], ratio: Callable[[dict[str, float]], float]
) -> tuple[float, float]:
    """Compute the ratio of the median times, and the interquartile range over single rounds.

    ``seconds`` come from :func:`alternate`; ``ratio`` takes one time for each contestant.
    """
    rounds = zip(*seconds.values(), strict=True)
    single = [ratio(dict(zip(seconds, times, strict=True))) for times in rounds]
    return ratio({name: median(times) for name, times in seconds.items()}), spread(single)


def machine(device: str | torch.device = "cpu") -> dict[str, str | int]:
    """Describe the machine that times depend on: processor, cores, threads, GPU."""
    threads = torch.get_num_threads()
    description: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 0,
        "threads": threads,
    }
    if torch.device(device).type == "cuda":
        description["gpu"] = torch.cuda.get_device_name(device)
    return description


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
