"""Training in several processes, also without GPUs."""

import gc
import os
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ..errors import ConfigError

_PATIENCE = timedelta(days=7)  # gloo knows no waiting without a limit
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def prepare_distributed(cfg: Config) -> None:
    """Make mmengine's launcher ``pytorch`` work on the CPU, with gloo; others are unaffected.

    mmengine calls ``torch.cuda.set_device`` and passes ``device_ids`` whatever the backend is. It
    skips the first if a process group exists, and the second if the config says so: in ``cfg``,
    ``model_wrapper_cfg`` and ``env_cfg`` change.
    """
    if cfg.get("launcher", "none") != "pytorch" or get_device() != "cpu":
        return
    if absent := [name for name in _TORCHRUN if name not in os.environ]:
        raise ConfigError(
            f"launcher 'pytorch' needs torchrun (tools/dist_train.sh): {', '.join(absent)} not set"
        )

    # mmengine ignores the top-level flag once there is a wrapper config.
    cfg.model_wrapper_cfg = {
        "type": "MMDistributedDataParallel",
        "broadcast_buffers": False,
        "find_unused_parameters": cfg.get("find_unused_parameters", False),
        **(cfg.get("model_wrapper_cfg") or {}),
        "device_ids": None,
    }

    env_cfg = dict(cfg.get("env_cfg") or {})
    env_cfg["dist_cfg"] = {**env_cfg.get("dist_cfg", {}), "backend": "gloo"}
    cfg.env_cfg = env_cfg

    if not dist.is_initialized():
        seconds = env_cfg["dist_cfg"].get("timeout")
        dist.init_process_group("gloo", timeout=seconds and timedelta(seconds=seconds))


def run_on_first_process(work: Callable[[], None]) -> None:
    """Run a function in the first process while the others wait without a time limit.

    The group's own ``timeout`` is for training steps; reading a whole dataset may take longer. If
    the work fails, the other processes exit silently: the first one reports the error.
    """
    if not dist.is_initialized():
        work()
        return
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    done = torch.zeros(1)
    try:
        if dist.get_rank() == 0:
            work()
            done += 1
    finally:
        dist.broadcast(done, src=0, group=group)
    dist.destroy_process_group(group)
    if not done:
        raise SystemExit(1)


def close_distributed(runner: Runner) -> None:
    """End the communication between processes, if there is any.

    torch with gloo aborts now and then at exit (``terminate called without an active exception``)
    if a ``DistributedDataParallel`` is still alive, so the wrapper goes first: the runner's model
    is unwrapped from here on.
    """
    if not dist.is_initialized():
        return
    if is_model_wrapper(runner.model):
        runner.model = runner.model.module
    gc.collect()  # the wrapper is part of reference cycles
    dist.destroy_process_group()


def is_first_process() -> bool:
    """Return whether this is the process with rank 0, known before communication starts."""
    ranks = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
    return next((os.environ[name] for name in ranks if name in os.environ), "0") == "0"
