"""Nested layers: each takes its slice from the width of its input."""

from .attention import NestedAttention
from .block import NestedBlock
from .fused_attention import fuse_attention
from .mlp import NestedMlp
from .nested import NestedLayerNorm, NestedLinear
from .patch_embed import NestedPatchEmbed
from .patch_merging import NestedPatchMerging
from .recycle import Recycle, RecycleMap
from .swin_level import SwinBlock, SwinLevel
from .window_attention import NestedWindowAttention

__all__ = [
    "NestedAttention",
    "NestedBlock",
    "NestedLayerNorm",
    "NestedLinear",
    "NestedMlp",
    "NestedPatchEmbed",
    "NestedPatchMerging",
    "NestedWindowAttention",
    "Recycle",
    "RecycleMap",
    "SwinBlock",
    "SwinLevel",
    "fuse_attention",
]
