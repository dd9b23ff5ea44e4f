"""Training stops where numbers end."""

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...errors import CheckpointError, DivergedError
from ...utils.text import some
from ...weights.io import is_finite, non_finite
from ..cli import checkpoint_folders, good_checkpoint


class FiniteHook(Hook):
    """Stops a training whose loss or weights are NaN or infinite.

    Looks at the loss after every step, and at the weights before they are saved: what is saved can
    be resumed from.
    """

    priority = "LOW"  # after averaging, before saving

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Looks at the step's loss.

        Args:
            runner: Knows the iteration and the work directory.
            batch_idx: Not used.
            data_batch: Not used.
            outputs: What the step logs; ``loss`` is the sum that was minimised.

        Raises:
            DivergedError: If the loss is not finite; names the iteration and the parts of the loss
                that are to blame, with their stages.
        """
        if not outputs or "loss" not in outputs or is_finite(outputs["loss"]):
            return
        parts = [f"{name}={float(x.detach()):g}" for name, x in outputs.items() if not is_finite(x)]
        raise DivergedError(
            f"iteration {runner.iter + 1}: {', '.join(parts)}; {_last_good(runner)}"
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: Mapping) -> None:
        """Looks at the weights, their averages, and the state of the optimizer.

        Args:
            runner: As above.
            checkpoint: What will be saved.

        Raises:
            DivergedError: If one is not finite; names the first few.
        """
        if bad := list(non_finite(checkpoint)):
            raise DivergedError(
                f"iteration {checkpoint['meta']['iter']}: {len(bad)} tensors hold NaN or infinity "
                f"({some(bad, 3)}), no checkpoint is written; {_last_good(runner)}"
            )


def _last_good(runner: Runner) -> str:
    try:
        path = good_checkpoint(*checkpoint_folders(runner.cfg, runner.work_dir))
    except CheckpointError as error:
        return str(error)
    return f"the last good checkpoint is {path}" if path else "no checkpoint has been saved yet"
