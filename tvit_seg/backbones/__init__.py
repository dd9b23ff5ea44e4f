"""Thinking backbones."""

from .base import ThinkingBackbone
from .vit import ThinkingViT

__all__ = ["ThinkingBackbone", "ThinkingViT"]
