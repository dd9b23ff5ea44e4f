"""Peak memory of a piece of work."""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


def peak_memory(run: Callable[[], object], device: str | torch.device = "cpu") -> int | None:
    """Peak memory that work needs in addition to memory in use before.

    On a GPU it is the memory allocated by torch. On the CPU it is the growth of the resident set
    (Linux only), after the C allocator has returned its free memory.

    Args:
        run: The work.
        device: Where it runs.

    Returns:
        Bytes at the peak, or None if unknown.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)
        (_PROCESS / "clear_refs").write_text("5")  # the peak starts anew
        before = _status("VmRSS")
        run()
        return max(0, _status("VmHWM") - before)
    except (OSError, AttributeError, LookupError):
        return None


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", (_PROCESS / "status").read_text(), re.MULTILINE)
    if found is None:
        raise LookupError(name)
    return 1024 * int(found[1])
