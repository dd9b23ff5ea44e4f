"""Surviving tokens, drawn over the image."""

import numpy as np
import pytest
import torch

from tvit_seg.errors import ConfigError
from tvit_seg.visualization import draw_keep_masks

RED = np.full((10, 12, 3), (200, 0, 40), np.uint8)
FADED = (241, 191, 201)


def test_pruned_tokens_fade_where_they_are():
    mask = torch.ones(2, 3, 3)  # patches of 4 pixels, the last row reaches over the border
    mask[0, 2, 1] = mask[1, 2, 1] = mask[1, 0, 0] = 0
    drawn = draw_keep_masks(RED, mask, patch_size=4)
    assert drawn.shape == (10, 36, 3)
    image, first, second = np.split(drawn, 3, axis=1)
    assert (image == RED).all()
    assert (first[8:10, 4:8] == FADED).all()
    assert (first == FADED).all(-1).sum() == 2 * 4
    assert (second[:4, :4] == FADED).all()
    assert (second == FADED).all(-1).sum() == 2 * 4 + 4 * 4


def test_an_image_of_another_size_than_the_model_saw():
    mask = torch.ones(1, 2, 3)
    mask[0, 0, 0] = 0
    image = np.zeros((20, 30, 3), np.uint8)
    drawn = draw_keep_masks(image, mask, patch_size=4, size=(8, 12))
    assert (drawn[:10, 30:40] > 0).all()
    assert (drawn > 0).any(-1).sum() == 10 * 10


def test_windows():
    windows = torch.tensor([[0, 0, 1, 2 / 3], [0, 1 / 3, 1, 1]])
    mask = torch.ones(2, 1, 2, 2)
    mask[0, 0, :, 1] = 0  # pixels 4 to 8: also in the second window, which keeps the upper half
    mask[1, 0, 1, 0] = 0
    image = np.zeros((8, 12, 3), np.uint8)
    drawn = draw_keep_masks(image, mask, patch_size=4, windows=windows)[:, 12:]
    assert (drawn[4:, 4:8] > 0).all()
    assert (drawn > 0).any(-1).sum() == 4 * 4


def test_windows_that_stopped_before_are_whole():
    mask = torch.full((1, 2, 2, 3), float("nan"))
    drawn = draw_keep_masks(RED[:8], mask, patch_size=4)
    assert (drawn == np.concatenate([RED[:8]] * 3, axis=1)).all()


def test_tokens_that_do_not_cover_the_image():
    with pytest.raises(ConfigError, match="patch_size must be large enough"):
        draw_keep_masks(RED, torch.ones(1, 3, 3), patch_size=2)
