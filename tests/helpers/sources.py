"""Small models, ours and timm's, and their weights."""

import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

from tvit_seg import ThinkingSwin, ThinkingViT

VIT = dict(img_size=64, num_layers=2, num_heads=4, embed_dims=64, num_classes=10)
SWIN = dict(embed_dims=16, depths=(2, 2, 2), num_heads=(2, 4, 8), window_size=4)


def vit(**kwargs):
    return ThinkingViT(**{**VIT, "thinking_stages": (2, 4), **kwargs}).eval()


def timm_vit(width=64, heads=4, **kwargs):
    options = dict(img_size=64, embed_dim=width, depth=2, num_heads=heads, num_classes=10)
    return VisionTransformer(**{**options, **kwargs}).eval()


def swin(**kwargs):
    options = dict(thinking_stages=((1, 2, 4), (2, 4, 8)), num_classes=10)
    return ThinkingSwin(**{**SWIN, **options, **kwargs}).eval()


def timm_swin(width=16, heads=(2, 4, 8), **kwargs):
    options = dict(img_size=64, depths=(2, 2, 2), window_size=4, num_classes=10)
    return SwinTransformer(**{**options, "embed_dim": width, "num_heads": heads, **kwargs}).eval()


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
