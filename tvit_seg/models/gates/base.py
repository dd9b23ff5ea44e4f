"""Base class of gates, and building one from its config."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ...registry import GATES, build_own
from ...utils.checks import check, check_number
from .functional import softmax_entropy

if TYPE_CHECKING:
    from ...thinking import StageOutput
    from ..backbones.base import ThinkingBackbone


class Gate(nn.Module, ABC):
    """Decision, after each thinking stage and for each image, whether it exits.

    A new gate overrides :meth:`stop`, and :meth:`entropy` if it measures uncertainty differently.
    Its decision on an image must not depend on the other images of the batch.
    """

    needs_decode_head = False
    """Reads decoded pixels, and so works in a full segmentor only."""

    resolution = "input"
    """Of the pixels that it reads: ``'input'`` for ``seg_logits`` at the padded input size,
    ``'token'`` for ``coarse_logits``, the decode head's output before upsampling."""

    def check(self, backbone: "ThinkingBackbone") -> None:
        """Raise ConfigError if the gate does not fit a backbone."""

    @property
    def measure(self) -> "Gate":
        """Gate that measures the uncertainty: this one, or the one it wraps."""
        return self

    def reset(self) -> None:
        """Forget earlier images; for gates with a history."""

    def entropy(self, output: "StageOutput") -> Tensor:
        """Uncertainty (n,) after a stage in nats; NaN where there is no image-level prediction."""
        if output.logits is None:
            return output.tokens.new_full((len(output.tokens),), float("nan"))
        return softmax_entropy(output.logits)

    @abstractmethod
    def stop(self, output: "StageOutput", entropy: Tensor) -> Tensor | bool:
        """Decide which images exit after a stage; not called for the last stage, where all exit.

        Args:
            output: Of the stage, for n images.
            entropy: (n,), from :meth:`entropy`.

        Returns:
            (n,) bool, or one plain bool for all images if the decision does not depend on data.
        """


def build_gate(gate: Gate | dict | None) -> Gate:
    """Build a gate from its config; None gives a gate that never stops an image early.

    Raises:
        ConfigError: If the config names no registered gate.
    """
    if isinstance(gate, Gate):
        return gate
    return build_own(GATES, "gate", dict(type="FixedGate", stage=-1) if gate is None else gate)


def check_threshold(threshold: float) -> float:
    """Return a threshold in nats."""
    return check_number("gate threshold", threshold)


def check_per_stage(name: str, values: float | Sequence[float]) -> float | list[float]:
    """Return a share in [0, 1] for all stages, or one for each but the last."""
    if isinstance(values, Sequence):
        return [check_number(name, value, maximum=1) for value in values]
    return check_number(name, values, maximum=1)


def check_count(name: str, values: float | Sequence[float], backbone: "ThinkingBackbone") -> None:
    """Raise ConfigError unless there is a single value or one for each stage but the last."""
    needed = backbone.num_stages - 1
    fits = not isinstance(values, Sequence) or len(values) == needed
    check(fits, name, values, f"one value, or a list of {needed} for {needed + 1} thinking stages")
