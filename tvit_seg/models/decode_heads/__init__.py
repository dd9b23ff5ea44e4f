"""Decode heads that follow the width of the features they get."""

from .build import NestedHead, StageDecoder, nest_heads
from .nested import Nested, nest, plain_head

__all__ = ["Nested", "NestedHead", "StageDecoder", "nest", "nest_heads", "plain_head"]
