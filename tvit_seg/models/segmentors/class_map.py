"""Class maps at the size of the original image, without all logits at that size."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def class_map(
    logits: Tensor,
    size: Sequence[int] | None = None,
    threshold: float | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Find the class of each pixel while logits are resized, a few classes at a time.

    The labels are those of resizing all logits first; ties go to the lowest class.

    Args:
        logits: (K, h, w), float.
        size: (H, W) of the map in pixels; None for that of the logits.
        threshold: For K = 1, the probability above which a pixel belongs to the class.
        align_corners: As in ``torch.nn.functional.interpolate``.

    Returns:
        (1, H, W): indices of classes, int64; for K = 1, 0 or 1 of the logits' dtype.
    """
    size = torch.Size(logits.shape[-2:] if size is None else size)
    if len(logits) == 1:
        return (resize(logits, size, align_corners).sigmoid() > threshold).to(logits)
    if logits.shape[-2:] == size:
        return logits.max(dim=0, keepdim=True).indices  # on the CPU three times as fast as argmax
    return best_class(
        lambda index: resize(logits[index : index + 1], size, align_corners),
        candidates(logits, size),
    )


def best_class(scores: Callable[[int], Tensor], classes: Sequence[int]) -> Tensor:
    """Class with the largest score of each pixel, the first of several.

    Args:
        scores: Of a class at all pixels, (1, H, W).
        classes: Indices to choose from, ascending.

    Returns:
        (1, H, W), int64.
    """
    first, *others = classes
    best = scores(first).clone()
    found = torch.full_like(best, first, dtype=torch.uint8 if classes[-1] < 256 else torch.int32)
    for index in others:
        own = scores(index)
        # indices ascend: the largest is the latest (masked_fill_ is several times as slow)
        torch.maximum(found, (own > best).to(found.dtype).mul_(index), out=found)
        torch.maximum(best, own, out=best)
    return found.long()


def candidates(logits: Tensor, size: Sequence[int], resized: int = 1) -> list[int]:
    """Classes that can be the best one of some pixel after bilinear upsampling, ascending.

    Every new pixel is a mean of 2 x 2 old ones: below their largest logit, above their smallest.

    Args:
        logits: (K, h, w).
        size: (H, W) that they are resized to.
        resized: How often; each further time, to any size, mixes one more row and column.
    """
    if any(new < old for new, old in zip(size, logits.shape[-2:], strict=True)):
        return list(range(len(logits)))
    floor = _pool(logits[0], torch.minimum, resized)
    largest = logits[0].abs().amax()
    for scores in logits[1:]:
        torch.maximum(floor, _pool(scores, torch.minimum, resized), out=floor)
        largest = torch.maximum(largest, scores.abs().amax())
    floor -= 8 * resized * torch.finfo(logits.dtype).eps * largest  # means are rounded
    # NaN is not below
    possible = [~(_pool(scores, torch.maximum, resized) < floor).all() for scores in logits]
    return torch.stack(possible).nonzero().flatten().tolist()


def _pool(scores: Tensor, largest: Callable[[Tensor, Tensor], Tensor], times: int) -> Tensor:
    """Largest (or smallest) value of each 2 x 2 pixels; (h, w) to (h - 1, w - 1), several times."""
    for dim in (0, 1) * times:
        if (length := scores.shape[dim] - 1) > 0:
            scores = largest(scores.narrow(dim, 0, length), scores.narrow(dim, 1, length))
    return scores


def resize(logits: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Resize logits (K, h, w) bilinearly to (K, H, W); a view where the size does not change."""
    if logits.shape[-2:] == torch.Size(size):  # interpolate would copy
        return logits
    return F.interpolate(logits[None], size, mode="bilinear", align_corners=align_corners)[0]
