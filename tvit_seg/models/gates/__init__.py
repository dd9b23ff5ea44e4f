"""Gates decide after each thinking stage which images exit."""

from .base import Gate, build_gate
from .budget import BudgetGate
from .entropy import EntropyGate
from .fixed import FixedGate, ProbeGate
from .pixel_entropy import PixelEntropyGate
from .random import RandomGate
from .sampled import SampledGate
from .threshold import ThresholdGate

__all__ = [
    "BudgetGate",
    "EntropyGate",
    "FixedGate",
    "Gate",
    "PixelEntropyGate",
    "ProbeGate",
    "RandomGate",
    "SampledGate",
    "ThresholdGate",
    "build_gate",
]
