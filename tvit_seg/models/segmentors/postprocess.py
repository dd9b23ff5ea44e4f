"""Conversion of logits at the network's input size to the original image's label map."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from ...errors import DataError
from ...utils.checks import check_choice


def padding(metainfo: Mapping) -> Sequence[int]:
    """Test-time padding (left, right, top, bottom) of an image in pixels."""
    return metainfo.get("img_padding_size", metainfo.get("padding_size", [0] * 4))


def to_original_size(logits: Tensor, metainfo: Mapping, align_corners: bool = False) -> Tensor:
    """Undo padding and flip and resize to the original image, as mmseg does.

    Args:
        logits: (K, H, W).
        metainfo: Of the data sample: ``ori_shape``, and where they were applied
            ``img_padding_size`` or ``padding_size`` (left, right, top, bottom), ``flip`` and
            ``flip_direction``.
        align_corners: As in ``interpolate``.

    Returns:
        (K, h, w); a view where the size does not change.
    """
    left, right, top, bottom = padding(metainfo)
    height, width = logits.shape[-2:]
    logits = logits[:, top : height - bottom, left : width - right]
    if metainfo.get("flip"):
        direction = metainfo.get("flip_direction")
        check_choice("flip_direction", direction, ("horizontal", "vertical"))
        logits = logits.flip(-1 if direction == "horizontal" else -2)
    if "ori_shape" not in metainfo:
        raise DataError("images come without ori_shape; meta_keys of PackSegInputs must have it")
    size = tuple(metainfo["ori_shape"][:2])
    if logits.shape[-2:] == size:  # resizing would copy it
        return logits
    options = dict(size=size, mode="bilinear", align_corners=align_corners)
    return F.interpolate(logits[None], **options).squeeze(0)


def has_original_size(size: Sequence[int], metainfo: Mapping) -> bool:
    """Return whether :func:`to_original_size` leaves logits of (H, W) pixels unchanged."""
    same = tuple(size) == tuple(metainfo["ori_shape"][:2])
    return same and not any(padding(metainfo)) and not metainfo.get("flip")


def class_map(scores: Tensor, threshold: float | None = None) -> Tensor:
    """Class of each pixel.

    Args:
        scores: (K, H, W) logits; for K = 1 probabilities.
        threshold: Probability above which a pixel belongs to the single class.

    Returns:
        (1, H, W).
    """
    if len(scores) == 1:
        return (scores > threshold).to(scores)
    return scores.max(dim=0, keepdim=True).indices  # on the CPU three times as fast as argmax
