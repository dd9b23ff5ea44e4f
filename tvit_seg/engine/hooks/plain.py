"""Checkpoints of a training that weights-only loading reads back."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ...weights.io import plain
from ...weights.publish import record_backbone


class PlainCheckpointHook(Hook):
    """Strips a checkpoint of everything that weights-only loading refuses.

    Runs last, after the hooks that add to the checkpoint. Log curves (``log_scalars``) are left
    out: after a resume the smoothed values of the log start anew. So are functions in the state
    of a parameter scheduler, which building the scheduler restores. Adds what weights do not tell
    about the backbone, the width of its heads.
    """

    priority = "LOWEST"

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Changes the checkpoint in place.

        Args:
            runner: Not used.
            checkpoint: What will be saved.
        """
        hub = checkpoint["message_hub"]
        kept = {key: on for key, on in hub["resumed_keys"].items() if key in hub["runtime_info"]}
        checkpoint["message_hub"] = {**hub, "log_scalars": {}, "resumed_keys": kept}
        if "param_schedulers" in checkpoint:
            checkpoint["param_schedulers"] = _without_functions(checkpoint["param_schedulers"])
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        checkpoint["meta"]["backbone"] = record_backbone(model)
        checkpoint.update(plain(checkpoint))


def _without_functions(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _without_functions(val) for key, val in state.items() if not callable(val)}
    if isinstance(state, list):
        return [_without_functions(value) for value in state]
    return state
