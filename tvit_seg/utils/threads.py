"""Defaults for the threads of a process."""

import os
from pathlib import Path


def set_thread_defaults() -> None:
    """Set ``OMP_NUM_THREADS`` and ``OMP_WAIT_POLICY`` where the user has not.

    One thread per physical core. By default waiting threads spin: if another program occupies one
    core, all others burn their time slices waiting for it.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(physical_cores()))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def physical_cores() -> int:
    """Return the number of cores that this process may use, without their second threads."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if usable is None:
        return os.cpu_count() or 1
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    files = [Path(topology.format(cpu)) for cpu in usable]
    if not all(file.is_file() for file in files):
        return len(usable)
    return len({file.read_text() for file in files})
