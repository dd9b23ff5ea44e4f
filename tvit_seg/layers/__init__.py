"""Nested layers: each takes its slice from the width of its input."""

from .attention import NestedAttention
from .fused_attention import fuse_attention
from .mlp import NestedMlp
from .nested import NestedLayerNorm, NestedLinear
from .patch_embed import NestedPatchEmbed
from .recycle import Recycle

__all__ = [
    "NestedAttention",
    "NestedLayerNorm",
    "NestedLinear",
    "NestedMlp",
    "NestedPatchEmbed",
    "Recycle",
    "fuse_attention",
]
