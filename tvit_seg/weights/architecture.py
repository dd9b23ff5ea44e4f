"""What network weights were made for, read from their names and shapes."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Integral

from torch import Tensor

from ..errors import CheckpointError
from ..models.backbones import ThinkingSwin, ThinkingViT
from ..models.backbones.base import ThinkingBackbone
from .architecture_swin import read_swin
from .convert import AUTHORS_SEGMENTATION
from .names_swin import is_swin


def backbone_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's part of weights under our names, without ``backbone.`` in front.

    Args:
        weights: Of a backbone, classifier or segmentor.
    """
    prefix = "backbone."
    inner = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    return inner or dict(weights)


def backbone_class(weights: Mapping[str, Tensor]) -> type[ThinkingBackbone]:
    """The kind of backbone that weights belong to.

    Args:
        weights: Under our names, of a backbone, classifier or segmentor.
    """
    return ThinkingSwin if is_swin(weights) else ThinkingViT


def read_architecture(
    weights: Mapping[str, Tensor],
    head_dim: int = 64,
    thinking_stages: Sequence[int] | Sequence[Sequence[int]] | None = None,
    kind: str = "",
    slicing: str | None = None,
) -> dict:
    """The arguments of the :func:`backbone_class` that weights fit.

    For Swin weights see also :func:`~tvit_seg.weights.architecture_swin.read_swin`.

    Args:
        weights: Under our names, see :func:`~tvit_seg.convert_state_dict`.
        head_dim: Channels of a ViT's attention head, which no shape tells; 64 in all published
            models. A Swin tells its heads.
        thinking_stages: Heads of each stage; None reads them off the recycling projections, the
            last stage being as wide as they are. Early releases are wider than their last stage:
            name the stages then. For a Swin the heads of each stage at each level.
        kind: What the weights were recognised as, ``report.source`` of ``convert_state_dict``. The
            authors' segmentation code has another norm and resizing than everyone else, and their
            Swin another slicing.
        slicing: How narrow stages of a Swin read its weights; None goes by ``kind``.

    Returns:
        Keyword arguments of the backbone, without gate and drop rates. The network is as wide as
        its last stage.

    Raises:
        CheckpointError: If these are no weights under our names, or heads and widths do not go
            together.
        ValueError: If ``thinking_stages`` do not fit the kind of backbone.
    """
    weights = backbone_weights(weights)
    if is_swin(weights):
        return read_swin(weights, thinking_stages, slicing, kind)
    if not all(isinstance(heads, Integral) for heads in thinking_stages or ()):
        raise ValueError(f"thinking_stages={thinking_stages}: a ViT has one number for each stage")
    needed = ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight")
    absent = [name for name in needed if name not in weights]
    depth = 1 + max((int(m[1]) for m in map(_BLOCK.match, weights) if m), default=-1)
    if absent:
        raise CheckpointError(
            f"no ViT weights: looked for {', '.join(needed)}; not found: {', '.join(absent)}"
        )
    width, channels, patch, _ = weights["patch_embed.proj.weight"].shape
    stages = _stages(weights, width, head_dim, thinking_stages)
    head = weights.get("head.weight")
    own = dict(norm_cfg=dict(type="LN", eps=1e-5), interpolate_mode="bilinear")
    return dict(
        img_size=_side(weights["pos_embed"].shape[1] - 1) * patch,
        patch_size=patch,
        in_channels=channels,
        embed_dims=stages[-1] * head_dim,
        num_layers=depth,
        num_heads=stages[-1],
        mlp_ratio=weights["blocks.0.mlp.fc1.weight"].shape[0] / width,
        qkv_bias="blocks.0.attn.qkv.bias" in weights,
        patch_bias="patch_embed.proj.bias" in weights,
        thinking_stages=stages,
        num_classes=0 if head is None else head.shape[0],
        **(own if kind == AUTHORS_SEGMENTATION else {}),
    )


_BLOCK = re.compile(r"blocks\.(\d+)\.")


def _stages(
    weights: Mapping[str, Tensor], width: int, head_dim: int, given: Sequence[int] | None
) -> tuple[int, ...]:
    narrow = [
        weights[name].shape[1]
        for name in sorted(weights, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
        if re.fullmatch(r"recycle\.\d+\.proj\.weight", name)
    ]
    if given is None:
        widths = [*narrow, _last_width(weights, len(narrow), width)]
    else:
        widths = [head_dim * heads for heads in given]
        if narrow and narrow != widths[:-1]:
            raise CheckpointError(
                f"thinking_stages={tuple(given)} with heads of {head_dim} channels are widths "
                f"{widths}, but the weights recycle from widths {narrow}"
            )
    if any(b <= a for a, b in pairwise(widths)):
        raise CheckpointError(
            f"the weights recycle from and to widths {widths}, which do not increase"
        )
    if widths[-1] > width or any(w % head_dim for w in widths):
        raise CheckpointError(
            f"stages of {widths} channels do not fit a network of {width} channels with heads of "
            f"{head_dim} channels"
        )
    return tuple(w // head_dim for w in widths)


def _last_width(weights: Mapping[str, Tensor], count: int, width: int) -> int:
    """Where the last recycling leads; that of the authors' files leads to the full width."""
    return weights[f"recycle.{count - 1}.proj.weight"].shape[0] if count else width


def _side(num_patches: int) -> int:
    side = round(num_patches**0.5)
    if side * side != num_patches:
        raise CheckpointError(f"a position embedding of {num_patches} patches is not square")
    return side
