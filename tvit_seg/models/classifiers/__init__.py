"""Classifiers that think, for pretraining and for evaluating gates."""

from .data_preprocessor import ClsDataPreProcessor
from .thinking_classifier import ThinkingClassifier

__all__ = ["ClsDataPreProcessor", "ThinkingClassifier"]
