"""Pictures of token pruning."""

from collections.abc import Sequence

import mmcv
import numpy as np
import torch
from torch import Tensor

from ..utils.checks import check

_FADED = 0.25  # share of a pruned token's colours that is left


def draw_keep_masks(
    image: np.ndarray,
    keep_mask: Tensor,
    patch_size: int = 16,
    windows: Tensor | None = None,
    size: Sequence[int] | None = None,
) -> np.ndarray:
    """Draw the tokens that survived, layer by layer.

    Args:
        image: (H, W, 3) uint8.
        keep_mask: (L, h, w) of a :class:`~tvit_seg.Thought`, or (W, L, h, w) of the windows: after
            each of L prunings 1 for kept and 0 for pruned tokens. NaN, if the stage did not run,
            counts as kept. A segmentor's results have it as ``kept_tokens``.
        patch_size: Pixels of the backbone's patches.
        windows: (W, 4) top, left, bottom, right as shares of the image; None for the whole image.
        size: (H, W) of the model's input, a result's ``img_shape``; None for that of ``image``.

    Returns:
        (H, (1 + L) W, 3) uint8: the image, then a copy for each pruning with pruned tokens
        faded. Where windows overlap, a token is pruned if it is in all of them.
    """
    height, width = size or image.shape[:2]
    if windows is None:
        keep_mask = keep_mask.reshape(-1, *keep_mask.shape[-3:])
        windows = torch.tensor([[0, 0, 1, 1]])
    boxes = (windows.cpu().double() * torch.tensor([height, width] * 2)).round().int().tolist()
    alive = np.zeros((keep_mask.shape[1], height, width), np.uint8)
    for kept, (top, left, bottom, right) in zip(keep_mask, boxes, strict=True):
        pixels = (kept != 0).cpu().numpy().repeat(patch_size, 1).repeat(patch_size, 2)
        covers = pixels.shape[1] >= bottom - top and pixels.shape[2] >= right - left
        allowed = f"large enough for {tuple(kept.shape[1:])} tokens to cover a window"
        check(covers, "patch_size", patch_size, allowed)
        alive[:, top:bottom, left:right] |= pixels[:, : bottom - top, : right - left]
    return np.concatenate([image, *(_fade(image, layer) for layer in alive)], axis=1)


def _fade(image: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Image (H, W, 3) with white laid over the zeros of a mask of any size."""
    alive = mmcv.imresize(alive, image.shape[1::-1], interpolation="nearest")
    faded = 255 - _FADED * (255 - image.astype(float))
    return np.where(alive[..., None] > 0, image, faded.round().astype(np.uint8))
