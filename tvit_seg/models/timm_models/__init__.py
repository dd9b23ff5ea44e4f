"""Thinking models for timm: ``import tvit_seg`` makes ``timm.create_model`` know them."""

from . import entrypoints  # noqa: F401, registers them
from .joint_loss import JointLoss
from .swin import TimmThinkingSwin
from .vit import TimmThinkingViT

__all__ = ["JointLoss", "TimmThinkingSwin", "TimmThinkingViT"]
