"""Thinking models for timm: ``import tvit_seg`` registers them for ``timm.create_model``."""

from . import entrypoints  # noqa: F401, registers them
from .joint_loss import JointLoss
from .swin import TimmThinkingSwin
from .vit import TimmThinkingViT

__all__ = ["JointLoss", "TimmThinkingSwin", "TimmThinkingViT"]
