"""Conversion of logits at the network's input size to the original image's label map."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ...errors import DataError
from ...utils.checks import check_choice
from .class_map import best_class, class_map, resize
from .image_logits import ImageLogits


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
    return resize(_undo(logits, metainfo), _original_size(metainfo), align_corners)


def label_map(
    logits: Tensor | ImageLogits,
    metainfo: Mapping,
    threshold: float | None,
    align_corners: bool = False,
) -> Tensor:
    """Find the labels of the original image, without its logits; see :func:`class_map`.

    Args:
        logits: (K, H, W), computed already or for one class after the other.
        metainfo: As in :func:`to_original_size`.
        threshold: As in :func:`class_map`.
        align_corners: As in ``interpolate``.

    Returns:
        (1, h, w).
    """
    if isinstance(logits, Tensor) or len(logits) == 1:
        size = _original_size(metainfo)
        return class_map(_undo(logits[:], metainfo), size, threshold, align_corners)
    return best_class(
        lambda index: to_original_size(logits[index : index + 1], metainfo, align_corners),
        logits.candidates(),
    )


def has_original_size(size: Sequence[int], metainfo: Mapping) -> bool:
    """Return whether :func:`to_original_size` leaves logits of (H, W) pixels unchanged."""
    same = tuple(size) == tuple(metainfo["ori_shape"][:2])
    return same and not any(padding(metainfo)) and not metainfo.get("flip")


def _undo(logits: Tensor, metainfo: Mapping) -> Tensor:
    """Cut off padding and flip back."""
    left, right, top, bottom = padding(metainfo)
    height, width = logits.shape[-2:]
    logits = logits[:, top : height - bottom, left : width - right]
    if metainfo.get("flip"):
        direction = metainfo.get("flip_direction")
        check_choice("flip_direction", direction, ("horizontal", "vertical"))
        logits = logits.flip(-1 if direction == "horizontal" else -2)
    return logits


def _original_size(metainfo: Mapping) -> tuple[int, int]:
    if "ori_shape" not in metainfo:
        raise DataError("images come without ori_shape; meta_keys of PackSegInputs must have it")
    return tuple(metainfo["ori_shape"][:2])
