"""A validation that a kill prevented is made up for."""

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

VALIDATED = "validated_step"
"""Where the message hub, and with it a checkpoint, holds the last step that was validated."""


class DueValidationHook(Hook):
    """Validates before the first step if the checkpoint was saved but its validation is missing.

    mmengine saves a step's checkpoint before it validates that step, and would go on with the step
    after it: the best weights, and what schedulers take from metrics, would be lost. Runs last,
    when all hooks are prepared for training. A checkpoint that says nothing of validations, such
    as mmengine's own, is as it is.
    """

    priority = "LOWEST"

    def before_train(self, runner: Runner) -> None:
        """Looks at what was resumed.

        Args:
            runner: The runner of the training.
        """
        step = step_of(runner)
        if runner.message_hub.runtime_info.get(VALIDATED, step) != step and _is_due(runner, step):
            runner.logger.info(f"step {step} was saved and not validated, which is done now")
            runner.val_loop.run()


def step_of(runner: Runner) -> int:
    """The epochs or iterations done, whichever validation counts by."""
    by_epoch = isinstance(runner._train_loop, EpochBasedTrainLoop)
    return runner.epoch if by_epoch else runner.iter


def _is_due(runner: Runner, step: int) -> bool:
    """As mmengine's loops decide it after a step."""
    loop = runner.train_loop
    known = isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop))
    if not known or runner.val_loop is None or step < loop.val_begin:
        return False
    loop._decide_current_val_interval()
    last = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    return step % loop.val_interval == 0 or step == last
