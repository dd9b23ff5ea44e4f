"""From logits at the size the network saw to the label map of the original image."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor


def restore(logits: Tensor, metainfo: Mapping, align_corners: bool = False) -> Tensor:
    """Takes padding and flip back and resizes to the original image, as mmseg does.

    Args:
        logits: (K, H, W).
        metainfo: Of the data sample: ``ori_shape``, and where they were applied
            ``img_padding_size`` or ``padding_size`` (left, right, top, bottom), ``flip`` and
            ``flip_direction``.
        align_corners: As in ``interpolate``.

    Returns:
        (K, h, w); a view where the size stays.

    Raises:
        ValueError: If the flip is neither horizontal nor vertical.
    """
    left, right, top, bottom = metainfo.get(
        "img_padding_size", metainfo.get("padding_size", [0] * 4)
    )
    height, width = logits.shape[-2:]
    logits = logits[:, top : height - bottom, left : width - right]
    if metainfo.get("flip"):
        direction = metainfo.get("flip_direction")
        if direction not in ("horizontal", "vertical"):
            raise ValueError(f"flip_direction={direction!r} must be 'horizontal' or 'vertical'")
        logits = logits.flip(-1 if direction == "horizontal" else -2)
    if "ori_shape" not in metainfo:
        raise ValueError("images come without ori_shape; meta_keys of PackSegInputs must have it")
    size = tuple(metainfo["ori_shape"][:2])
    if logits.shape[-2:] == size:  # resizing would copy it
        return logits
    options = dict(size=size, mode="bilinear", align_corners=align_corners)
    return F.interpolate(logits[None], **options).squeeze(0)


def stays(size: Sequence[int], metainfo: Mapping) -> bool:
    """Whether :func:`restore` has nothing to do for logits of (H, W) pixels."""
    padding = metainfo.get("img_padding_size", metainfo.get("padding_size", [0] * 4))
    same = tuple(size) == tuple(metainfo["ori_shape"][:2])
    return same and not any(padding) and not metainfo.get("flip")


def class_map(scores: Tensor, threshold: float | None = None) -> Tensor:
    """The class of each pixel.

    Args:
        scores: (K, H, W) logits; for K = 1 probabilities.
        threshold: From which probability on a pixel belongs to the single class.

    Returns:
        (1, H, W).
    """
    if len(scores) == 1:
        return (scores > threshold).to(scores)
    return scores.max(dim=0, keepdim=True).indices  # on the CPU three times as fast as argmax
