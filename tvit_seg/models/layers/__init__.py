"""Nested layers: each takes its slice from the width of its input."""

from .attention import NestedAttention
from .block import NestedBlock
from .fused_attention import fuse_attention
from .mlp import NestedMlp, NestedSwiGLU, NestedSwiGLUPacked
from .nested import KeyMaskedLinear, NestedLayerNorm, NestedLayerScale, NestedLinear
from .patch_embed import NestedPatchEmbed, SlicedConv2d
from .patch_merging import NestedPatchMerging
from .recycle import Recycle, RecycleMap
from .rope import build_rope, rotary_table
from .swin_level import SwinBlock, SwinLevel
from .window_attention import NestedWindowAttention

__all__ = [
    "KeyMaskedLinear",
    "NestedAttention",
    "NestedBlock",
    "NestedLayerNorm",
    "NestedLayerScale",
    "NestedLinear",
    "NestedMlp",
    "NestedPatchEmbed",
    "NestedPatchMerging",
    "NestedSwiGLU",
    "NestedSwiGLUPacked",
    "NestedWindowAttention",
    "Recycle",
    "RecycleMap",
    "SlicedConv2d",
    "SwinBlock",
    "SwinLevel",
    "build_rope",
    "fuse_attention",
    "rotary_table",
]
