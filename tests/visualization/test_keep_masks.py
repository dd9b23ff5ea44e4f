"""Which tokens survived, drawn over the image."""

import numpy as np
import pytest
import torch

from tvit_seg import FixedGate, ThinkingViT
from tvit_seg.visualization import draw_kept_tokens

RED = np.full((10, 12, 3), (200, 0, 40), np.uint8)
FADED = (241, 191, 201)


def test_pruned_tokens_fade_where_they_are():
    kept = torch.ones(2, 3, 3)  # patches of 4 pixels, the last row reaches over the border
    kept[0, 2, 1] = kept[1, 2, 1] = kept[1, 0, 0] = 0
    drawn = draw_kept_tokens(RED, kept, patch_size=4)
    assert drawn.shape == (10, 36, 3)
    image, first, second = np.split(drawn, 3, axis=1)
    assert (image == RED).all()
    assert (first[8:10, 4:8] == FADED).all()
    assert (first == FADED).all(-1).sum() == 2 * 4
    assert (second[:4, :4] == FADED).all()
    assert (second == FADED).all(-1).sum() == 2 * 4 + 4 * 4


def test_an_image_of_another_size_than_the_model_saw():
    kept = torch.ones(1, 2, 3)
    kept[0, 0, 0] = 0
    image = np.zeros((20, 30, 3), np.uint8)
    drawn = draw_kept_tokens(image, kept, patch_size=4, size=(8, 12))
    assert (drawn[:10, 30:40] > 0).all()
    assert (drawn > 0).any(-1).sum() == 10 * 10


def test_windows():
    windows = torch.tensor([[0, 0, 1, 2 / 3], [0, 1 / 3, 1, 1]])
    kept = torch.ones(2, 1, 2, 2)
    kept[0, 0, :, 1] = 0  # pixels 4 to 8: also in the second window, which keeps the upper half
    kept[1, 0, 1, 0] = 0
    image = np.zeros((8, 12, 3), np.uint8)
    drawn = draw_kept_tokens(image, kept, patch_size=4, windows=windows)[:, 12:]
    assert (drawn[4:, 4:8] > 0).all()
    assert (drawn > 0).any(-1).sum() == 4 * 4


def test_windows_that_stopped_before_are_whole():
    kept = torch.full((1, 2, 2, 3), float("nan"))
    drawn = draw_kept_tokens(RED[:8], kept, patch_size=4)
    assert (drawn == np.concatenate([RED[:8]] * 3, axis=1)).all()


@torch.no_grad()
def test_what_a_backbone_says():
    pruning = dict(type="DynamicPruning", locations=(0, 1), keep_ratio=0.5)
    backbone = ThinkingViT(
        img_size=16, patch_size=4, embed_dims=16, num_layers=2, num_heads=2, thinking_stages=(1, 2),
        pruning=pruning,
    ).eval()  # fmt: skip
    thought = backbone.think(torch.randn(1, 3, 10, 12), FixedGate(1))
    drawn = draw_kept_tokens(RED, thought.keep_mask[0], backbone.patch_size)
    survivors = (drawn == RED[0, 0]).all(-1).reshape(10, 3, 12).sum((0, 2))
    assert survivors[0] == 120
    assert survivors[0] > survivors[1] > survivors[2] > 0


def test_another_patch_size():
    with pytest.raises(ValueError, match="3 x 3 tokens of patch_size=2 do not cover 10 x 12"):
        draw_kept_tokens(RED, torch.ones(1, 3, 3), patch_size=2)
