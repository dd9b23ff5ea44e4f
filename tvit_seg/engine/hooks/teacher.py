"""The teacher of a pruned model outlives a restart."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ...models.pruning import PruningLoss

_KEY = "pruning_teacher"


class TeacherHook(Hook):
    """Saves what a pruned model is distilled from beside the model, and resumes with it.

    Without, a resumed training would take the half-trained weights for its teacher. Weights that
    are merely loaded bring no teacher along.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds the teacher's weights.

        Args:
            runner: Has the model.
            checkpoint: What will be saved.
        """
        loss = _pruning_loss(runner)
        if loss is not None and loss.teacher.weights:
            checkpoint[_KEY] = loss.teacher.weights

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes the teacher's weights, if training is resumed.

        Args:
            runner: Has the model.
            checkpoint: What was loaded.
        """
        loss = _pruning_loss(runner)
        if loss is not None and runner._resume and _KEY in checkpoint:
            loss.teacher.weights = checkpoint[_KEY]


def _pruning_loss(runner: Runner) -> PruningLoss | None:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return getattr(model, "pruning_loss", None)
