"""Gates say which images stop after a thinking stage."""

from .base import Gate, build_gate
from .budget import BudgetGate
from .drawn import DrawnGate
from .entropy import EntropyGate
from .fixed import FixedGate, ProbeGate
from .pixel_entropy import PixelEntropyGate
from .random import RandomGate
from .threshold import ThresholdGate

__all__ = [
    "BudgetGate",
    "DrawnGate",
    "EntropyGate",
    "FixedGate",
    "Gate",
    "PixelEntropyGate",
    "ProbeGate",
    "RandomGate",
    "ThresholdGate",
    "build_gate",
]
