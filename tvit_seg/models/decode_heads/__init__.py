"""Decode heads that follow the width of the features they get, and decoding in two steps."""

from .build import NestedHead, StageDecoder, nest_heads
from .nested import Nested, nest, plain_head
from .two_steps import coarse_logits, has_two_steps, upsample

__all__ = [
    "Nested",
    "NestedHead",
    "StageDecoder",
    "coarse_logits",
    "has_two_steps",
    "nest",
    "nest_heads",
    "plain_head",
    "upsample",
]
