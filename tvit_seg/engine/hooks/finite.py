"""Stop of a diverged training."""

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...errors import CheckpointError, DivergedError
from ...utils.text import some
from ...weights.io import is_finite, non_finite
from .checkpoint import checkpoint_folders, good_checkpoint


class FiniteHook(Hook):
    """Stops a training whose loss or weights are NaN or infinite.

    The loss is checked after every step, and a checkpoint's content before it is written, so every
    checkpoint can be resumed from.
    """

    priority = "LOW"  # after averaging, before saving

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Raise DivergedError, which names the parts of a loss that is not finite."""
        if not outputs or "loss" not in outputs or is_finite(outputs["loss"]):
            return
        parts = [f"{name}={float(x.detach()):g}" for name, x in outputs.items() if not is_finite(x)]
        raise DivergedError(
            f"iteration {runner.iter + 1}: {', '.join(parts)}; {_last_good(runner)}"
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: Mapping) -> None:
        """Raise DivergedError if weights, averages, or the optimizer's state are not finite."""
        if bad := list(non_finite(checkpoint)):
            raise DivergedError(
                f"iteration {checkpoint['meta']['iter']}: {len(bad)} tensors hold NaN or infinity "
                f"({some(bad, 3)}), no checkpoint is written; {_last_good(runner)}"
            )


def _last_good(runner: Runner) -> str:
    try:
        found = good_checkpoint(*checkpoint_folders(runner.cfg, runner.work_dir))
    except CheckpointError as error:
        return str(error)
    return (
        f"the last good checkpoint is {found[0]}" if found else "no checkpoint has been saved yet"
    )
