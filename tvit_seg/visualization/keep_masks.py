"""Pictures of token pruning."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

_FADED = 0.25  # what is left of a pruned token's colours


def draw_kept_tokens(
    image: np.ndarray,
    kept_tokens: Tensor,
    patch_size: int = 16,
    windows: Tensor | None = None,
    size: Sequence[int] | None = None,
) -> np.ndarray:
    """Draws which tokens survived, layer by layer.

    ``kept_tokens`` and ``windows`` are what :class:`~tvit_seg.Thought` and the segmentor's results
    carry; then ``size`` is the result's ``img_shape``.

    Args:
        image: (H, W, 3) uint8.
        kept_tokens: (L, h, w), or (W, L, h, w) of the windows: after each of L prunings 1 for kept
            and 0 for pruned tokens. NaN, where the stage did not run, counts as kept.
        patch_size: Of the backbone, in pixels.
        windows: (W, 4) top, left, bottom, right as shares of the image; None for the whole image.
        size: (H, W) in pixels of the image as the model saw it; None for the size of ``image``.

    Returns:
        (H, (1 + L) W, 3) uint8: the image, and once more after each pruning with pruned tokens
        faded. Where windows overlap, a token is pruned if it is in all of them.

    Raises:
        ValueError: If the tokens do not cover their windows.
    """
    height, width = size or image.shape[:2]
    if windows is None:
        kept_tokens, windows = kept_tokens.reshape(-1, *kept_tokens.shape[-3:]), torch.ones(1, 4)
        windows[:, :2] = 0
    boxes = (windows.cpu().double() * torch.tensor([height, width] * 2)).round().int().tolist()
    alive = np.zeros((kept_tokens.shape[1], height, width), np.uint8)
    for kept, (top, left, bottom, right) in zip(kept_tokens, boxes, strict=True):
        pixels = (kept != 0).cpu().numpy().repeat(patch_size, 1).repeat(patch_size, 2)
        if pixels.shape[1] < bottom - top or pixels.shape[2] < right - left:
            raise ValueError(
                f"{kept.shape[1]} x {kept.shape[2]} tokens of patch_size={patch_size} do not cover "
                f"{bottom - top} x {right - left} pixels"
            )
        alive[:, top:bottom, left:right] |= pixels[:, : bottom - top, : right - left]
    panels = [image, *(_fade(image, layer) for layer in alive)]
    return np.concatenate(panels, axis=1)


def _fade(image: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) with white laid over what is 0 in a mask of any size."""
    alive = cv2.resize(alive, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    faded = 255 - _FADED * (255 - image.astype(float))
    return np.where(alive[..., None] > 0, image, faded.round().astype(np.uint8))
