"""Segmentors that train and run thinking stages."""

from .image_loss import ImageLoss
from .thinking_encoder_decoder import ThinkingEncoderDecoder
from .tta import ThinkingTTAModel

__all__ = ["ImageLoss", "ThinkingEncoderDecoder", "ThinkingTTAModel"]
