"""Necks between thinking backbones and decode heads."""

from .projection import ProjectionNeck

__all__ = ["ProjectionNeck"]
