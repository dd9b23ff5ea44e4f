"""Timing on a machine that others use too: contestants take turns, medians are compared."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

import torch

Contestants = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Ratio:
    """A ratio of times.

    Attributes:
        name: What is compared.
        compute: Gives the ratio from one time for each contestant.
        target: The most that it should be; None where there is nothing to reach.
    """

    name: str
    compute: Callable[[dict[str, float]], float]
    target: float | None = None


@dataclass(frozen=True)
class Row:
    """Contestants that are measured together.

    Attributes:
        group: Number by which it is selected, with others of its kind.
        contestants: Builds what is timed, by name.
        ratios: What comes out.
    """

    group: int
    contestants: Callable[[], Contestants]
    ratios: Sequence[Ratio]


def alternate(
    contestants: Contestants,
    rounds: int,
    warmup: int = 1,
    synchronize: Callable[[], object] | None = None,
    tick: Callable[[], object] | None = None,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, list[float]]:
    """Times each contestant once a round, so that disturbances hit all of them alike.

    Args:
        contestants: What to time.
        rounds: Rounds that count, at least 1.
        warmup: Rounds before them that do not.
        synchronize: Waits for the device, called right before each look at the clock.
        tick: Called after each round, those of the warm-up included.
        clock: The time in seconds. ``time.process_time``, the processor time of this process alone,
            stays steady where other jobs take turns on the cores (then use one thread: waiting
            threads count too).

    Returns:
        Seconds, one for each contestant and round that counts.
    """
    seconds = {name: [] for name in contestants}
    for index in range(-warmup, rounds):
        # back and forth, so that nobody always follows the same neighbour
        turn = list(contestants.items())[:: 1 if index % 2 == 0 else -1]
        for name, run in turn:
            elapsed = _time(run, synchronize, clock)
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
    """A ratio of times, and how much it varies.

    Args:
        seconds: From :func:`alternate`.
        ratio: Computes the ratio from one time for each contestant.

    Returns:
        The ratio of the medians, and the interquartile range of the ratios of single rounds.
    """
    names = list(seconds)
    single = [
        ratio(dict(zip(names, times, strict=True))) for times in zip(*seconds.values(), strict=True)
    ]
    return ratio({name: median(times) for name, times in seconds.items()}), spread(single)


def machine(device: str | torch.device = "cpu") -> dict[str, str | int]:
    """What a time depends on besides the code: processor, cores, threads, GPU."""
    description = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
    }
    if torch.device(device).type == "cuda":
        description["gpu"] = torch.cuda.get_device_name(device)
    return description


def _time(
    run: Callable[[], object],
    synchronize: Callable[[], object] | None,
    clock: Callable[[], float],
) -> float:
    if synchronize is not None:
        synchronize()
    start = clock()
    run()
    if synchronize is not None:
        synchronize()
    return clock() - start


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
