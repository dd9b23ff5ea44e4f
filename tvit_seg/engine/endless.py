"""Loops that would never end."""

from mmengine.dataset import InfiniteSampler
from mmengine.runner import BaseLoop

from ..errors import ConfigError


def require_end(loop: BaseLoop, name: str) -> BaseLoop:
    """Looks at the sampler of a loop that goes over its data once, or once an epoch.

    Args:
        loop: Is built.
        name: ``"train"``, ``"val"`` or ``"test"``, for the message.

    Returns:
        The loop.

    Raises:
        ConfigError: If the sampler goes on for ever.
    """
    if isinstance(loop.dataloader.sampler, InfiniteSampler):
        raise ConfigError(
            f"{name}_cfg has a {type(loop).__name__}, which needs an end, and {name}_dataloader an "
            "InfiniteSampler: use DefaultSampler, or IterBasedTrainLoop for training"
        )
    return loop
