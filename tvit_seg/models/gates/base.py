"""What every gate is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ...registry import GATES
from .functional import softmax_entropy

if TYPE_CHECKING:
    from ...thinking import StageOutput
    from ..backbones.base import ThinkingBackbone


class Gate(nn.Module, ABC):
    """Decides after each thinking stage, image by image, who stops.

    A new gate overrides :meth:`stop`, and :meth:`entropy` if it measures uncertainty its own way.
    Its decision on an image must not depend on the other images of the batch.
    """

    needs_decode_head = False
    """Whether the gate reads decoded pixels, and so works in a full segmentor only."""

    def check(self, backbone: "ThinkingBackbone") -> None:
        """Raises ValueError if the gate cannot work with this backbone.

        Args:
            backbone: The backbone that shall use the gate.
        """

    @property
    def measure(self) -> "Gate":
        """The gate that measures uncertainty: itself, or one that it asks."""
        return self

    def reset(self) -> None:
        """Forgets what it remembers of earlier images, for gates that do."""

    def entropy(self, output: "StageOutput") -> Tensor:
        """Uncertainty of the images that ran a stage.

        Args:
            output: What the stage says about n images.

        Returns:
            (n,) in nats; NaN where there is no image-level prediction.
        """
        if output.logits is None:
            return output.tokens.new_full((len(output.tokens),), float("nan"))
        return softmax_entropy(output.logits)

    @abstractmethod
    def stop(self, output: "StageOutput", entropy: Tensor) -> Tensor | bool:
        """Decide which images stop after a stage; not called after the last one, where all do.

        Args:
            output: Of the stage, for n images.
            entropy: (n,), from :meth:`entropy`.

        Returns:
            (n,) bool, or a single bool for all of them where that does not depend on data.
        """


def build_gate(gate: Gate | dict | None) -> Gate:
    """Builds a gate from its config.

    Args:
        gate: A gate, its config, or None for a gate that never stops an image early.

    Returns:
        The gate.

    Raises:
        ValueError: If it is none of these, or the config names no registered gate.
    """
    if isinstance(gate, Gate):
        return gate
    if not isinstance(gate, (Mapping, type(None))):
        raise ValueError(f"gate={gate!r} must be None or a dict such as dict(type='EntropyGate')")
    options = dict(type="FixedGate", stage=-1) if gate is None else dict(gate)
    kind = options.pop("type", None)
    cls = kind if isinstance(kind, type) else GATES.module_dict.get(str(kind).split(".")[-1])
    if cls is None:
        raise ValueError(f"gate={gate!r} must name one of {sorted(GATES.module_dict)} as its type")
    return cls(**options)


def check_threshold(threshold: float) -> float:
    """Returns the threshold in nats, or raises ValueError if it is negative, NaN or no number."""
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not threshold >= 0:
        raise ValueError(f"gate threshold={threshold!r} must be a number >= 0 (in nats)")
    return float(threshold)
