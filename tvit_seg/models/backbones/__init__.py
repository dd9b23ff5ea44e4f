"""Thinking backbones."""

from .base import ThinkingBackbone
from .swin import ThinkingSwin
from .vit import ThinkingViT

__all__ = ["ThinkingBackbone", "ThinkingSwin", "ThinkingViT"]
