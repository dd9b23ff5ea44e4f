"""Thinking models as graphs: ONNX or ``torch.export``, with a host loop that gates between them."""

from ..errors import ExportError
from .export import export
from .formats import FORMATS
from .graphs import DecodeGraph, FixedStageGraph, StageGraph, build_graphs
from .host import Result, ThinkingHost

__all__ = [
    "FORMATS",
    "DecodeGraph",
    "ExportError",
    "FixedStageGraph",
    "Result",
    "StageGraph",
    "ThinkingHost",
    "build_graphs",
    "export",
]
