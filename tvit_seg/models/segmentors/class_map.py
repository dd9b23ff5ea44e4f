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
    best = logits.new_full((1, *size), -torch.inf)
    classes = torch.zeros_like(best, dtype=torch.uint8 if len(logits) <= 256 else torch.int32)
    for index in _candidates(logits, size):
        scores = resize(logits[index : index + 1], size, align_corners)
        classes.masked_fill_(scores > best, index)
        torch.maximum(best, scores, out=best)
    return classes.long()


def _candidates(logits: Tensor, size: torch.Size) -> list[int]:
    """Classes that can be the best one of some pixel after bilinear upsampling, ascending.

    Every new pixel is a mean of 2 x 2 old ones: below their largest logit, above their smallest.
    """
    if any(new < old for new, old in zip(size, logits.shape[-2:], strict=True)):
        return list(range(len(logits)))
    floor = _pool(logits[0], torch.minimum)
    largest = logits[0].abs().amax()
    for scores in logits[1:]:
        torch.maximum(floor, _pool(scores, torch.minimum), out=floor)
        largest = torch.maximum(largest, scores.abs().amax())
    floor -= 8 * torch.finfo(logits.dtype).eps * largest  # means are rounded
    possible = [(_pool(scores, torch.maximum) >= floor).any() for scores in logits]
    return torch.stack(possible).nonzero().flatten().tolist()


def _pool(scores: Tensor, largest: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Largest (or smallest) value of each 2 x 2 pixels; (h, w) to (h - 1, w - 1)."""
    for dim in (0, 1):
        if (length := scores.shape[dim] - 1) > 0:
            scores = largest(scores.narrow(dim, 0, length), scores.narrow(dim, 1, length))
    return scores


def resize(logits: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Resize logits (K, h, w) bilinearly to (K, H, W); a view where the size does not change."""
    if logits.shape[-2:] == torch.Size(size):  # interpolate would copy
        return logits
    return F.interpolate(logits[None], size, mode="bilinear", align_corners=align_corners)[0]
