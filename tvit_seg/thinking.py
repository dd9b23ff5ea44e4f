"""The exit loop of ThinkingViT (https://arxiv.org/abs/2507.10800), and what it hands around.

The loop stands here once. Classifier, segmentor and plain backbone all think through it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .backbones.base import ThinkingBackbone
    from .gates import Gate

Decode = Callable[[tuple[Tensor, ...]], Tensor]


@dataclass
class StageOutput:
    """What one thinking stage says about the n images that ran it.

    Attributes:
        stage: Index of the stage, from 0.
        num_stages: How many stages the backbone has.
        tokens: (n, N, d) all tokens after the final norm, d the width of the stage.
        features: Maps (n, C, H', W') with C the full width; narrow ones are zero-padded to it.
        logits: (n, K) image-level prediction, or None without a head.
        images: (n, 3, H, W) the images themselves.
        decode: Maps features to pixel logits, where a decode head is at hand.
    """

    stage: int
    num_stages: int
    tokens: Tensor
    features: tuple[Tensor, ...]
    logits: Tensor | None
    images: Tensor | None = None
    decode: Decode | None = None

    @cached_property
    def seg_logits(self) -> Tensor:
        """(n, K, H, W) pixel logits at the padded input size, decoded when first asked for."""
        if self.decode is None:
            raise ValueError("there is no decode head to ask for pixel logits")
        return self.decode(self.features)


@dataclass
class Thought:
    """What the exit loop says about a batch of B images, each from the stage where it stopped.

    Attributes:
        features: Maps (B, C, H', W').
        exit_stage: (B,) index of the stage where the image stopped.
        entropy: (B, number of stages) as the gate measured it, in nats; NaN where not run.
        logits: (B, K) image-level prediction, or None without a head.
        seg_logits: (B, K, H, W) at the padded input size if the gate had them decoded, else None.
    """

    features: tuple[Tensor, ...]
    exit_stage: Tensor
    entropy: Tensor
    logits: Tensor | None
    seg_logits: Tensor | None = None


def think(
    backbone: "ThinkingBackbone", images: Tensor, gate: "Gate", decode: Decode | None = None
) -> Thought:
    """Runs thinking stages until every image has stopped; who stops costs nothing further.

    Args:
        backbone: Embeds images and runs a stage.
        images: (B, 3, H, W).
        gate: Says who stops.
        decode: Decode head for gates that look at pixels: features to (n, K, H, W).

    Returns:
        The thought, in the order of the batch.
    """
    last = backbone.num_stages - 1
    active = torch.arange(len(images))
    embedding = tokens = None
    entropy = images.new_full((len(images), last + 1), float("nan"), dtype=torch.float)
    stopped = []
    for stage in range(last + 1):
        embedding = backbone.embed(images, stage, embedding)
        output = backbone.run_stage(stage, embedding, tokens, images.shape[-2:])
        output.images, output.decode = images, decode
        seen = gate.entropy(output)
        entropy[active, stage] = seen.detach().float()
        stop = torch.ones(len(active), dtype=torch.bool)
        if stage < last:
            stop = gate.stop(output, seen).cpu()  # the one look at the data that the host waits for
        if stop.any():
            stopped.append((_select(active, stop), _conclude(output, stop)))
        if stop.all():
            break
        active, images, embedding, tokens = (
            _select(x, ~stop) for x in (active, images, embedding, output.tokens)
        )
    return _gather(stopped, entropy)


def _select(x: Tensor | None, mask: Tensor) -> Tensor | None:
    """Rows under a mask; all of them without a copy."""
    return x if x is None or mask.all() else x[mask.to(x.device)]


def _conclude(output: StageOutput, stop: Tensor) -> Thought:
    """The thought of the images that stop after a stage."""
    return Thought(
        features=tuple(_select(x, stop) for x in output.features),
        exit_stage=output.tokens.new_full((int(stop.sum()),), output.stage, dtype=torch.long),
        entropy=None,
        logits=_select(output.logits, stop),
        # there only if the gate asked for it
        seg_logits=_select(output.__dict__.get("seg_logits"), stop),
    )


def _gather(stopped: list[tuple[Tensor, Thought]], entropy: Tensor) -> Thought:
    """Joins the thoughts of all stages in the order of the batch."""
    indices, thoughts = zip(*stopped, strict=True)
    order = torch.cat(indices).argsort()

    def join(parts: list[Tensor | None]) -> Tensor | None:
        return parts[0] if len(parts) == 1 or parts[0] is None else torch.cat(parts)[order]

    return Thought(
        features=tuple(map(join, zip(*(t.features for t in thoughts), strict=True))),
        exit_stage=join([t.exit_stage for t in thoughts]),
        entropy=entropy,
        logits=join([t.logits for t in thoughts]),
        seg_logits=join([t.seg_logits for t in thoughts]),
    )
