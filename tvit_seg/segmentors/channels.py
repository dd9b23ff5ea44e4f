"""Whether decode heads fit the maps of a backbone."""

from collections.abc import Sequence

from torch import nn


def check_channels(name: str, heads: nn.Module | None, channels: Sequence[int]) -> None:
    """Compares what mmseg's heads expect with what the backbone returns.

    Args:
        name: Of the heads in the config, for the message.
        heads: A decode head, several in a list, or None.
        channels: Of each map.

    Raises:
        ValueError: If a head expects other channels, or maps that there are not.
    """
    if isinstance(heads, nn.ModuleList):
        for index, head in enumerate(heads):
            check_channels(f"{name}[{index}]", head, channels)
    elif heads is not None and hasattr(heads, "input_transform"):
        index = heads.in_index
        wanted = list(index) if isinstance(index, Sequence) else [index]
        if not all(-len(channels) <= i < len(channels) for i in wanted):
            raise ValueError(
                f"{name} in_index={index} names maps that there are not: the backbone returns "
                f"{len(channels)}"
            )
        found = [channels[i] for i in wanted]
        given = heads.in_channels
        fits = list(given) == found if isinstance(given, Sequence) else given == sum(found)
        if not fits:
            raise ValueError(f"{name} in_channels={given} must be {found}, those of the backbone")
