"""Runs a script in several processes on the CPU, as torchrun does."""

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

PLACES = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]


def free_port():
    """A port that nobody listens at, and that the system gives to nobody on its own."""
    while True:
        port = random.SystemRandom().randint(20_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def launcher(count):
    """Arguments of Python that run what follows in ``count`` processes."""
    port = f"--master_port={free_port()}"
    return "-m", "torch.distributed.run", f"--nproc_per_node={count}", port


def run_together(count, *command, cwd, timeout=240):
    """Runs a script with arguments in ``count`` processes; a hang or an error fails the test.

    Returns:
        What they printed.
    """
    done = subprocess.run(
        [sys.executable, *launcher(count), *map(str, command)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PLACES), "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    # the first error is a process's own, torchrun's follow
    assert done.returncode == 0, done.stderr[done.stderr.find("Traceback") :][:4000]
    return done.stdout + done.stderr
