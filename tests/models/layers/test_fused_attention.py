"""Fused attention in decode heads: same numbers, no weights."""

import copy

import torch
from helpers.builders import MASK
from helpers.contracts import close
from mmseg.registry import MODELS
from torch import nn

from tvit_seg.models.layers import fuse_attention


def test_head_gives_the_same_logits_and_gradients():
    plain = MODELS.build(MASK)
    plain.init_weights()
    plain.eval().double()  # in single precision the norm over the classes magnifies rounding
    fused = fuse_attention(copy.deepcopy(plain))
    assert list(fused.state_dict()) == list(plain.state_dict())
    maps = [torch.randn(2, 32, 6, 5, dtype=torch.double)]
    for head in (plain, fused):
        head(maps).square().sum().backward()
    close(fused(maps), plain(maps))
    for a, b in zip(fused.parameters(), plain.parameters(), strict=True):
        close(a.grad, b.grad)


def test_weights_are_never_computed():
    attention = fuse_attention(nn.MultiheadAttention(8, 2))
    x = torch.randn(3, 1, 8)
    assert attention(x, x, x, need_weights=True)[1] is None
