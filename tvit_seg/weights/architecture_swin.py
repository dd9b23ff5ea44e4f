"""What Swin weights were made for, read from their names and shapes."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor

from ..errors import CheckpointError
from ..models.backbones.swin import check_stages
from .names_swin import AUTHORS_SWIN

_BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.")


def read_swin(
    weights: Mapping[str, Tensor],
    thinking_stages: Sequence[Sequence[int]] | None = None,
    slicing: str | None = None,
    kind: str = "",
) -> dict:
    """The arguments of the :class:`~tvit_seg.ThinkingSwin` that weights fit.

    Args:
        weights: Of a backbone, under our names.
        thinking_stages: Heads of each stage at each level. Weights that recycle need them: they
            tell the last level of narrow stages only. None takes others for a single stage.
        slicing: As in ``ThinkingSwin``; None for the authors' in weights of that ``kind``, and else
            for ours.
        kind: What the weights were recognised as, ``report.source`` of ``convert_state_dict``.

    Returns:
        Keyword arguments of ``ThinkingSwin``, without gate and drop rates. The network is as wide
        as its last stage if that doubles its width from level to level, else as wide as the
        weights are.

    Raises:
        CheckpointError: If these are no Swin weights under our names, or the stages do not go
            together with them.
        ValueError: If the stages do not fit the levels.
    """
    blocks = {(int(m[1]), int(m[2])) for m in map(_BLOCK.match, weights) if m}
    depths = _depths(blocks)
    first = [f"layers.{level}.blocks.0" for level in range(len(depths))]
    absent = [
        name
        for name in (
            "patch_embed.proj.weight",
            *(f"{block}.norm1.weight" for block in first),
            *(f"{block}.attn.relative_position_bias_table" for block in first),
            "layers.0.blocks.0.mlp.fc1.weight",
        )
        if name not in weights
    ]
    if absent:
        raise CheckpointError(f"no complete Swin weights: not found: {', '.join(absent)}")
    width, channels, patch, _ = weights["patch_embed.proj.weight"].shape
    dims = [len(weights[f"{block}.norm1.weight"]) for block in first]
    if not doubles(dims) or dims[0] != width:
        raise CheckpointError(
            f"levels of {dims} channels after a patch embedding of {width}: "
            "a ThinkingSwin starts with that width and doubles it from level to level"
        )
    tables = [name for name in weights if name.endswith(".relative_position_bias_table")]
    full = tuple(weights[f"{b}.attn.relative_position_bias_table"].shape[1] for b in first)
    stages = _stages(weights, dims, full, thinking_stages)
    last = [w // n * h for w, n, h in zip(dims, full, stages[-1], strict=True)]
    if doubles(last):
        width, full = last[0], stages[-1]
    head = weights.get("head.weight")
    lower = [level for level in range(len(depths) - 1) if f"norm{level}.weight" in weights]
    return dict(
        in_channels=channels,
        embed_dims=width,
        patch_size=patch,
        window_size=_window({name: len(weights[name]) for name in tables}),
        mlp_ratio=weights["layers.0.blocks.0.mlp.fc1.weight"].shape[0] / dims[0],
        depths=depths,
        num_heads=full,
        out_indices=(*lower, len(depths) - 1),
        qkv_bias="layers.0.blocks.0.attn.qkv.bias" in weights,
        thinking_stages=stages,
        num_classes=0 if head is None else head.shape[0],
        slicing=slicing or ("leading" if kind == AUTHORS_SWIN else "grouped"),
    )


def _depths(blocks: set[tuple[int, int]]) -> tuple[int, ...]:
    levels = 1 + max((level for level, _ in blocks), default=-1)
    counts = tuple(sum(at == level for at, _ in blocks) for level in range(levels))
    if (
        not levels
        or 0 in counts
        or blocks != {(at, i) for at, count in enumerate(counts) for i in range(count)}
    ):
        raise CheckpointError(
            "no complete Swin weights: looked for layers.N.blocks.M, both counted from 0; "
            f"found blocks per level: {list(counts)}"
        )
    return counts


def doubles(dims: Sequence[int]) -> bool:
    """Whether widths are twice as large from level to level, as those of a plain Swin."""
    return all(dim == dims[0] * 2**level for level, dim in enumerate(dims))


def _stages(
    weights: Mapping[str, Tensor],
    dims: Sequence[int],
    full: tuple[int, ...],
    given: Sequence[Sequence[int]] | None,
) -> tuple[tuple[int, ...], ...]:
    """Heads of each stage at each level, checked against the recycling weights."""
    count = sum(bool(re.fullmatch(r"recycle\.\d+\.proj\.weight", name)) for name in weights)
    found = [
        (
            weights[f"recycle.{i}.upsample.weight"].shape[0],
            weights[f"recycle.{i}.proj.weight"].shape[0],
        )
        for i in range(count)
    ]
    if given is None:
        if found:
            heads = [narrow * full[-1] // dims[-1] for narrow, _ in found]
            raise CheckpointError(
                f"{count + 1} thinking stages, and weights do not tell the heads of narrow stages "
                f"at each level: name thinking_stages, such as 3,3,6,12 3,6,12,24. Full width is "
                f"{','.join(map(str, full))}, the stages before the last have "
                f"{', '.join(map(str, heads))} heads at the last level"
            )
        given = (full,)
    stages, _ = check_stages(given, full, len(full))
    wanted = [
        (narrow[-1] * dims[-1] // full[-1], wide[0] * dims[0] // full[0])
        for narrow, wide in pairwise(stages)
    ]
    if found and found != wanted:
        raise CheckpointError(
            f"thinking_stages={stages} recycle from and to widths {wanted}, the weights from and "
            f"to {found}"
        )
    return stages


def _window(positions: Mapping[str, int]) -> int:
    """The window that tables of so many relative positions belong to."""
    lengths = sorted(set(positions.values()))
    side = round(lengths[0] ** 0.5)
    if len(lengths) > 1 or side * side != lengths[0] or side % 2 == 0:
        raise CheckpointError(
            f"tables of {', '.join(map(str, lengths))} relative positions: a ThinkingSwin has one "
            "square window for all levels, w x w tokens with (2 w - 1)^2 relative positions"
        )
    return (side + 1) // 2
