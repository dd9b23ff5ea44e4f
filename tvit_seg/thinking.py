"""The exit loop of ThinkingViT (https://arxiv.org/abs/2507.10800), and what it hands around.

The loop stands here once. Classifier, segmentor and plain backbone all think through it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import nan
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .models.backbones.base import ThinkingBackbone
    from .models.gates import Gate

Features = tuple[Tensor | tuple[Tensor, Tensor], ...]
"""Maps (n, C, H', W') for decode heads, each paired with its class token (n, C) if asked for."""

Decode = Callable[[Features], Tensor]


@dataclass
class StageOutput:
    """What one thinking stage says about the n images that ran it.

    Attributes:
        stage: Index of the stage, from 0.
        num_stages: How many stages the backbone has.
        tokens: All tokens after the final norm, d the width of the stage: (n, N, d) with a class
            token, (n, h, w, d) of a pyramid's last level.
        features: Maps (n, C, H', W') with C the full width; narrow ones are zero-padded to it. With
            ``output_cls_token`` each is a pair with its class token (n, C).
        logits: (n, K) image-level prediction, or None without a head.
        images: (n, 3, H, W) the images themselves.
        decode: Maps features to pixel logits, where a decode head is at hand.
        kept_tokens: (n, L, h, w) which spatial tokens survive each of L prunings, 1 or 0, in
            training with a gradient to the predictors; None where the stage is not pruned.
    """

    stage: int
    num_stages: int
    tokens: Tensor
    features: Features
    logits: Tensor | None
    images: Tensor | None = None
    decode: Decode | None = None
    kept_tokens: Tensor | None = None

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
        features: Maps (B, C, H', W'), with ``output_cls_token`` each paired with (B, C).
        exit_stage: (B,) index of the stage where the image stopped.
        entropy: (B, number of stages) as the gate measured it, in nats; NaN where not run.
        logits: (B, K) image-level prediction, or None without a head.
        seg_logits: (B, K, H, W) at the padded input size if the gate had them decoded, else None.
        kept_tokens: (B, L, h, w) which spatial tokens survived each of L prunings, 1 or 0; NaN for
            images that stopped before. None if no stage is pruned.
    """

    features: Features
    exit_stage: Tensor
    entropy: Tensor
    logits: Tensor | None
    seg_logits: Tensor | None = None
    kept_tokens: Tensor | None = None


def think(
    backbone: "ThinkingBackbone | Replay",
    images: Tensor,
    gate: "Gate",
    decode: Decode | None = None,
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
    shape = backbone.kept_shape(images.shape[-2:])
    kept = shape and images.new_full((len(images), *shape), nan)
    entropy = images.new_full((len(images), last + 1), nan, dtype=torch.float)
    stopped = []
    for stage in range(last + 1):
        embedding = backbone.embed(images, stage, embedding)
        output = backbone.run_stage(stage, embedding, tokens, images.shape[-2:])
        output.images, output.decode = images, decode
        seen = gate.entropy(output)
        entropy[active, stage] = seen.detach().float()
        if output.kept_tokens is not None:
            kept[active] = output.kept_tokens.detach().to(kept)
        stop = torch.ones(len(active), dtype=torch.bool)
        if stage < last:
            stop = gate.stop(output, seen).cpu()  # the one look at the data that the host waits for
        if stop.any() or stop.all():  # an empty batch stops too
            stopped.append(_Stopped.select(output, active, _rows(stop)))
        if stop.all():
            break
        go = _rows(~stop)
        active, images, embedding, tokens = (
            _select(x, go) for x in (active, images, embedding, output.tokens)
        )
    return _gather(stopped, entropy, kept)


class Replay:
    """Stages that have run on all images, in place of a backbone that :func:`think` runs.

    What a gate decides then is what it would have decided, asked about the same images.

    Args:
        outputs: Of every stage, from ``ThinkingBackbone.forward_stages``.
    """

    def __init__(self, outputs: Sequence[StageOutput]):
        self.outputs = outputs
        self.num_stages = len(outputs)

    def kept_shape(self, size: Sequence[int]) -> tuple[int, int, int] | None:
        """As of the backbone."""
        shapes = (x.kept_tokens.shape[1:] for x in self.outputs if x.kept_tokens is not None)
        return next(shapes, None)

    def embed(self, images: Tensor, stage: int, embedding: Tensor | None = None) -> Tensor:
        """Row numbers (n,) of the images among all."""
        return torch.arange(len(images)) if embedding is None else embedding

    def run_stage(
        self, stage: int, embedding: Tensor, tokens: Tensor | None, size: Sequence[int]
    ) -> StageOutput:
        """What the stage has said about images.

        Args:
            stage: Index of the stage, from 0.
            embedding: (n,) row numbers.
            tokens: Not used.
            size: Not used.
        """
        output = self.outputs[stage]
        return replace(
            output,
            tokens=_select(output.tokens, embedding),
            features=_select(output.features, embedding),
            logits=_select(output.logits, embedding),
            kept_tokens=_select(output.kept_tokens, embedding),
        )


@dataclass
class _Stopped:
    """The images that stopped after a stage; fields as in :class:`Thought`."""

    index: Tensor
    stage: int
    features: Features
    logits: Tensor | None
    seg_logits: Tensor | None

    @classmethod
    def select(cls, output: StageOutput, active: Tensor, rows: Tensor | None) -> "_Stopped":
        return cls(
            index=_select(active, rows),
            stage=output.stage,
            features=_select(output.features, rows),
            logits=_select(output.logits, rows),
            # there only if the gate asked for it
            seg_logits=_select(output.__dict__.get("seg_logits"), rows),
        )


def _rows(mask: Tensor) -> Tensor | None:
    """Row numbers under a mask on the CPU; None for all, which needs no copy."""
    return None if mask.all() else mask.nonzero().flatten()


def _select(x: Tensor | tuple | None, rows: Tensor | None) -> Tensor | tuple | None:
    if x is None or rows is None:
        return x
    if isinstance(x, tuple):
        return tuple(_select(part, rows) for part in x)
    return x.index_select(0, rows.to(x.device, non_blocking=True))


def _gather(stopped: list[_Stopped], entropy: Tensor, kept_tokens: Tensor | None) -> Thought:
    """Joins what stopped after each stage, in the order of the batch."""
    order = torch.cat([part.index for part in stopped]).argsort()

    def join(parts: Sequence[Tensor | tuple | None]) -> Tensor | tuple | None:
        if len(parts) == 1 or parts[0] is None:
            return parts[0]
        if isinstance(parts[0], tuple):
            return tuple(map(join, zip(*parts, strict=True)))
        return _select(torch.cat(parts), order)

    exits = [torch.full((len(part.index),), part.stage, device=entropy.device) for part in stopped]
    return Thought(
        features=join([part.features for part in stopped]),
        exit_stage=join(exits),
        entropy=entropy,
        logits=join([part.logits for part in stopped]),
        seg_logits=join([part.seg_logits for part in stopped]),
        kept_tokens=kept_tokens,
    )
