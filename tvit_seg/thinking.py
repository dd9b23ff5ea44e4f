"""The exit loop of ThinkingViT (https://arxiv.org/abs/2507.10800) and the data it passes on.

The loop exists once: classifier, segmentor and plain backbone all think through it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from math import nan
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node

from .errors import ConfigError

if TYPE_CHECKING:
    from .models.backbones.base import ThinkingBackbone
    from .models.gates import Gate

Features = tuple[Tensor | tuple[Tensor, Tensor], ...]
"""Maps (n, C, H', W') for decode heads, each paired with its class token (n, C) if asked for."""


class StagedFeatures(tuple):
    """Features that carry the stage they come from, for heads that follow their width.

    Attributes:
        exit_stage: Index of the stage; (n,) on the CPU where images of several stages are joined.
            None if unknown.
    """

    exit_stage: int | Tensor | None

    def __new__(cls, features: Features, exit_stage: int | Tensor | None = None):
        staged = super().__new__(cls, features)
        staged.exit_stage = exit_stage
        return staged


# an exported backbone returns a plain tuple
register_pytree_node(
    StagedFeatures,
    lambda features: (list(features), None),
    lambda features, _: tuple(features),
    serialized_type_name="tvit_seg.StagedFeatures",
)

Rows = Tensor | bool
"""Row numbers of some images of a batch; True for all of them, False for none."""


@dataclass(frozen=True)
class StageOutput:
    """Output of one thinking stage for the n images that ran it.

    Attributes:
        stage: Index of the stage, from 0.
        num_stages: Number of stages of the backbone.
        tokens: All tokens after the final norm, d the width of the stage: (n, N, d) with a class
            token, (n, h, w, d) of a pyramid's last level.
        features: Maps (n, C, H', W') with C the full width; narrow ones are zero-padded to it. With
            ``output_cls_token`` each is a pair with its class token (n, C).
        logits: (n, K) image-level prediction, or None without a head.
        images: (n, 3, H, W) the images themselves.
        coarse_logits: (n, K, h, w) pixel logits at the decode head's own resolution, for gates that
            read pixels.
        seg_logits: (n, K, H, W) the same at the padded input size, for gates that read those.
        keep_mask: (n, L, h, w) spatial tokens that survive each of L prunings, 1 or 0, in training
            with a gradient to the predictors; None where the stage is not pruned.
    """

    stage: int
    num_stages: int
    tokens: Tensor
    features: Features
    logits: Tensor | None
    images: Tensor | None = None
    coarse_logits: Tensor | None = None
    seg_logits: Tensor | None = None
    keep_mask: Tensor | None = None

    def __post_init__(self):
        object.__setattr__(self, "features", StagedFeatures(self.features, self.stage))

    def select(self, rows: Rows) -> "StageOutput":
        """Output for some of the images; not copied if ``rows`` is True."""
        return replace(self, **{f.name: _select(getattr(self, f.name), rows) for f in fields(self)})


@dataclass
class Thought:
    """Result of the exit loop for a batch of B images, each from its exit stage.

    Attributes:
        features: Maps (B, C, H', W'), with ``output_cls_token`` each paired with (B, C).
        exit_stage: (B,) index of each image's exit stage.
        entropy: (B, number of stages) as the gate measured it, in nats; NaN where not run.
        logits: (B, K) image-level prediction, or None without a head.
        coarse_logits: (B, K, h, w) at the decode head's own resolution if the gate had them
            decoded, else None.
        seg_logits: (B, K, H, W) at the padded input size if the gate read these, else None.
        keep_mask: (B, L, h, w) spatial tokens that survived each of L prunings, 1 or 0; NaN for
            images that stopped before. None if no stage is pruned.
    """

    features: Features
    exit_stage: Tensor
    entropy: Tensor
    logits: Tensor | None
    coarse_logits: Tensor | None = None
    seg_logits: Tensor | None = None
    keep_mask: Tensor | None = None


@dataclass(frozen=True)
class Decode:
    """A decode head in two steps, so that gates and label maps can do without the second.

    Attributes:
        coarse: Features of n images to logits (n, K, h, w) at the head's own resolution.
        upsample: These to logits (n, K, H, W) at the padded input size.
    """

    coarse: Callable[[Features], Tensor]
    upsample: Callable[[Tensor], Tensor]

    def __call__(self, features: Features) -> Tensor:
        """Decode features of n images to logits (n, K, H, W) at the padded input size."""
        return self.upsample(self.coarse(features))

    def coarse_logits(self, output: StageOutput | Thought) -> Tensor:
        """Logits (n, K, h, w) of an output, decoded unless the gate had that done."""
        if output.coarse_logits is None:
            return self.coarse(output.features)
        return output.coarse_logits

    def seg_logits(self, output: StageOutput | Thought) -> Tensor:
        """Logits (n, K, H, W) of an output, computed unless the gate had that done."""
        if output.seg_logits is None:
            return self.upsample(self.coarse_logits(output))
        return output.seg_logits


def think(
    backbone: "ThinkingBackbone | Replay",
    images: Tensor,
    gate: "Gate",
    decode: Decode | None = None,
) -> Thought:
    """Run thinking stages until every image has stopped; images that stop cost nothing further.

    Args:
        backbone: Embeds images and runs a stage.
        images: (B, 3, H, W).
        gate: Decides which images stop.
        decode: Decode head for gates that read pixels.

    Returns:
        The results in the order of the batch.
    """
    last = backbone.num_stages - 1
    active = torch.arange(len(images))  # row numbers of the images that continue
    entropy = images.new_full((len(images), last + 1), nan, dtype=torch.float)
    shape = backbone.keep_mask_shape(images.shape[-2:])
    keep_mask = shape and images.new_full((len(images), *shape), nan)
    exits = []
    embedding = tokens = None
    for stage in range(last + 1):
        embedding = backbone.embed(images, stage, embedding)
        output = backbone.run_stage(stage, embedding, tokens, images.shape[-2:])
        output, uncertainty = measure(gate, output, images, decode)
        entropy[active, stage] = uncertainty.detach().float()
        if output.keep_mask is not None:
            keep_mask[active] = output.keep_mask.detach().to(keep_mask)
        stop = gate.stop(output, uncertainty) if stage < last else True
        stopping, going = _partition(stop)
        if stopping is not False:
            exits.append((_select(active, stopping), output.select(stopping)))
        if going is False:
            break
        active, images, embedding, tokens = (
            _select(x, going) for x in (active, images, embedding, output.tokens)
        )
    return _gather(exits, entropy, keep_mask)


def measure(
    gate: "Gate", output: StageOutput, images: Tensor, decode: Decode | None = None
) -> tuple[StageOutput, Tensor]:
    """Measure the uncertainty of images after a stage.

    Args:
        gate: Measures; pixels are decoded first if it needs them.
        output: Of the stage, for n images.
        images: (n, 3, H, W).
        decode: Decode head for gates that read pixels.

    Returns:
        The output together with everything that the gate reads, and (n,) entropies in nats.

    Raises:
        ConfigError: If the gate reads pixels and there is no decode head.
    """
    output = replace(output, images=images)
    if gate.needs_decode_head:
        if decode is None:
            raise ConfigError(f"{type(gate).__name__} reads decoded pixels and needs a decode head")
        output = replace(output, coarse_logits=decode.coarse(output.features))
        if gate.measure.resolution == "input":
            output = replace(output, seg_logits=decode.seg_logits(output))
    return output, gate.entropy(output)


class Replay:
    """Recorded outputs of all stages, in place of the backbone in :func:`think`.

    Args:
        outputs: Of every stage, from ``ThinkingBackbone.forward_stages``.
    """

    def __init__(self, outputs: Sequence[StageOutput]):
        self.outputs = outputs
        self.num_stages = len(outputs)

    def keep_mask_shape(self, size: Sequence[int]) -> tuple[int, ...] | None:
        """(L, h, w) of the images' keep masks; None if no stage is pruned."""
        masks = (output.keep_mask for output in self.outputs)
        return next((tuple(mask.shape[1:]) for mask in masks if mask is not None), None)

    def embed(self, images: Tensor, stage: int, embedding: Tensor | None = None) -> Tensor:
        """Row numbers (n,) of the images among all."""
        return torch.arange(len(images)) if embedding is None else embedding

    def run_stage(
        self, stage: int, embedding: Tensor, tokens: Tensor | None, size: Sequence[int]
    ) -> StageOutput:
        """Recorded output of a stage for the rows (n,) in ``embedding``."""
        return self.outputs[stage].select(embedding)


def _partition(stop: Tensor | bool) -> tuple[Rows, Rows]:
    """Rows of the images that exit, and of those that continue."""
    if isinstance(stop, Tensor):
        stop = stop.cpu()  # the one point where the host waits for the device
        if 0 < stop.sum() < len(stop):
            return stop.nonzero().flatten(), (~stop).nonzero().flatten()
        stop = bool(stop.all())
    return stop, not stop


def _select(x: Any, rows: Rows) -> Any:
    """Rows of a tensor, or of each tensor in nested tuples; anything else is returned unchanged."""
    if isinstance(x, tuple):
        return tuple(_select(part, rows) for part in x)
    if rows is True or not isinstance(x, Tensor):
        return x
    return x.index_select(0, rows.to(x.device, non_blocking=True))


def _gather(
    exits: list[tuple[Tensor, StageOutput]], entropy: Tensor, keep_mask: Tensor | None
) -> Thought:
    """Join the images that stopped after each stage, in the order of the batch."""
    rows, outputs = zip(*exits, strict=True)
    order = torch.cat(rows).argsort()

    def join(parts: Sequence[Tensor | tuple | None]) -> Tensor | tuple | None:
        if len(parts) == 1 or parts[0] is None:
            return parts[0]
        if isinstance(parts[0], tuple):
            return tuple(map(join, zip(*parts, strict=True)))
        return _select(torch.cat(parts), order)

    stages = join([torch.full((len(row),), output.stage) for row, output in exits])
    own = stages if len(outputs) > 1 else outputs[0].stage
    return Thought(
        features=StagedFeatures(join([output.features for output in outputs]), own),
        exit_stage=stages.to(entropy.device),
        entropy=entropy,
        logits=join([output.logits for output in outputs]),
        coarse_logits=join([output.coarse_logits for output in outputs]),
        seg_logits=join([output.seg_logits for output in outputs]),
        keep_mask=keep_mask,
    )
