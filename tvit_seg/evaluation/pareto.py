"""Which settings are worth their cost."""

from collections.abc import Mapping, Sequence
from math import inf


def pareto_front(
    points: Sequence[Mapping[str, float]], cost: str = "gmacs", quality: str = "mIoU"
) -> list[Mapping[str, float]]:
    """The points that no other point beats: none is as cheap and better, or as good and cheaper.

    Args:
        points: Settings, e.g. of gate threshold and keep ratio, with what they cost and reach.
        cost: Key of the cost, the lower the better.
        quality: Key of the quality, the higher the better.

    Returns:
        The points themselves, cheapest first, of equal ones the first. NaN is never on the front.
    """
    front, best = [], -inf
    finite = [point for point in points if point[cost] == point[cost]]
    for point in sorted(finite, key=lambda point: (point[cost], -point[quality])):
        if point[quality] > best:
            front.append(point)
            best = point[quality]
    return front
