"""The architecture that weights belong to, read from their names and shapes."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from ..registry import MODELS
from ..utils.checks import check
from .convert import OURS, ConvertedStateDict, Report, backbone_weights, convert_state_dict
from .entries import foreign
from .fit import position_grid, recorded_head_dim, square
from .names_swin import AUTHORS_SWIN, is_swin
from .names_vit import AUTHORS_SEGMENTATION

Stages = Sequence[int] | Sequence[Sequence[int]]

_PATCHES = "patch_embed.proj.weight"

DINOV3: dict[str, Any] = dict(
    use_abs_pos_emb=False,
    rope=dict(rope_type="dinov3", temperature=100.0, rotate_half=True),
    norm_cfg=dict(type="LN", eps=1e-5),
)
EVA02: dict[str, Any] = dict(rope=dict(rope_type="cat", ref_feat_shape=(16, 16)))
CLIP: dict[str, Any] = dict(norm_cfg=dict(type="LN", eps=1e-5))
"""Arguments of ThinkingViT for networks whose weights neither name nor show them."""


def read_architecture(
    weights: Mapping[str, Tensor],
    head_dim: int | None = None,
    thinking_stages: Stages | None = None,
    slicing: str | None = None,
) -> dict[str, Any]:
    """Read the backbone's config from weights.

    Args:
        weights: Under our names. The ``report`` of :func:`~tvit_seg.convert_state_dict` names their
            source: the authors' segmentation code has its own norm and resizing, their Swin its
            own slicing; and has what their file records, which other arguments replace.
        head_dim: Channels of a ViT's attention head. None takes the recorded width, else 64, which
            all published models have.
        thinking_stages: Heads of each stage; for a Swin at each level. None takes the recorded
            ones, or reads a ViT's from the recycling projections. Required for early releases,
            which are wider than their last stage, and for a Swin with recycling, whose weights only
            tell the last level's.
        slicing: Slicing of a Swin's narrow stages; None takes the recorded one, or chooses by the
            source.

    Parts of a ViT that its weights do not show are those of the published network with such
    weights: without position embedding :data:`DINOV3`, with gated perceptrons and without layer
    scale :data:`EVA02`, with a norm before the blocks :data:`CLIP`.

    Returns:
        ``type`` and arguments of the backbone, without gate and drop rates. The network is as wide
        as its last stage; a Swin only if that doubles its width from level to level, and with
        ``slicing='leading'`` only if it has the full first level, else as wide as the weights are.

    Raises:
        CheckpointError: Names are missing, or heads and widths contradict each other.
        ConfigError: ``thinking_stages`` do not fit the kind of backbone.
    """
    report = weights.report if isinstance(weights, ConvertedStateDict) else Report("")
    recorded = report.recorded
    weights = backbone_weights(weights)
    thinking_stages = thinking_stages or recorded.get("thinking_stages")
    if is_swin(weights):
        authors = report.source == AUTHORS_SWIN
        slicing = slicing or recorded.get("slicing") or ("leading" if authors else "grouped")
        swin = _read_swin(weights, thinking_stages, slicing)
        return dict(type="ThinkingSwin", **swin, slicing=slicing)
    head_dim = head_dim or recorded_head_dim(recorded)
    if head_dim is None and report.source == OURS:
        raise CheckpointError(
            "the file does not record the width of its attention heads: name it, head_dim or "
            "--head-dim"
        )
    head_dim = head_dim or 64
    config = dict(type="ThinkingViT", **_read_vit(weights, head_dim, thinking_stages, recorded))
    if report.source == AUTHORS_SEGMENTATION:
        config.update(norm_cfg=dict(type="LN", eps=1e-5), interpolate_mode="bilinear")
    if not {"norm.weight", "fc_norm.weight"} & weights.keys():  # mmseg's default
        config.update(final_norm=False)
    if recorded.get("activation") == "quick_gelu":
        config.update(act_cfg=dict(type="mmseg.QuickGELU"))
    if "norm_eps" in recorded:
        config.update(norm_cfg=dict(type="LN", eps=recorded["norm_eps"]))
    return config


def fit_to(weights: ConvertedStateDict, backbone: Mapping[str, Any]) -> ConvertedStateDict:
    """Fit weights, alone or with heads of a segmentor, to the backbone that a config describes.

    Raises:
        CheckpointError: They have or lack something that changes what the network computes; or they
            would be cropped, but have a decode head.
    """
    model = MODELS.build(backbone)
    alone = ConvertedStateDict(backbone_weights(weights))
    alone.report = weights.report
    fitted = convert_state_dict(alone, model)
    report, prefix = fitted.report, "" if alone.keys() == weights.keys() else "backbone."
    heads = {k: v for k, v in weights.items() if k.removeprefix(prefix) not in alone}
    if heads and report.cropped:
        raise CheckpointError(
            "only backbones and classifiers can be cropped: the model is wider than "
            f"{backbone['embed_dims']} channels and has {next(iter(heads))}"
        )
    result = ConvertedStateDict({prefix + k: v for k, v in fitted.items()} | heads)
    result.report = report
    return result


def _require(weights: Mapping[str, Tensor], kind: str, *names: str) -> None:
    if absent := [name for name in names if name not in weights]:
        raise CheckpointError(
            f"no complete {kind} weights: not found: {', '.join(absent)}; "
            f"parts of another network: {foreign(weights)}"
        )


def _read_vit(
    weights: Mapping[str, Tensor], head_dim: int, given: Stages | None, recorded: Mapping[str, Any]
) -> dict:
    _require(weights, "ViT", _PATCHES, "blocks.0.mlp.fc2.weight")
    width, channels, patch, _ = weights[_PATCHES].shape
    hidden = weights["blocks.0.mlp.fc2.weight"].shape[1]
    stages = _vit_stages(weights, width, head_dim, given)
    return dict(
        img_size=224,
        patch_size=patch,
        in_channels=channels,
        embed_dims=stages[-1] * head_dim,
        num_layers=1 + max(index for (index,) in _numbers(weights, r"blocks\.(\d+)\.")),
        num_heads=stages[-1],
        mlp_ratio=hidden / width,
        qkv_bias="blocks.0.attn.qkv.bias" in weights,
        patch_bias="patch_embed.proj.bias" in weights,
        thinking_stages=stages,
        num_classes=len(weights.get("head.weight", ())),
    ) | _parts(weights, hidden, patch, recorded)


def _parts(
    weights: Mapping[str, Tensor], hidden: int, patch: int, recorded: Mapping[str, Any]
) -> dict[str, Any]:
    """Size of the image, and arguments of ThinkingViT for parts that a plain ViT lacks."""
    parts: dict[str, Any] = {}
    for argument, name in (
        ("pre_norm", "norm_pre"),
        ("qk_norm", "blocks.0.attn.q_norm"),
        ("scale_attn_norm", "blocks.0.attn.norm"),
        ("scale_mlp_norm", "blocks.0.mlp.norm"),
    ):
        if f"{name}.weight" in weights:
            parts[argument] = True
    if "reg_token" in weights:
        parts["reg_tokens"] = weights["reg_token"].shape[1]
    if "blocks.0.ls1.gamma" in weights:
        parts["init_values"] = 1e-5
    if "blocks.0.mlp.fc1_g.weight" in weights:
        parts["mlp_layer"] = "SwiGLU"
    elif len(weights["blocks.0.mlp.fc1.weight"]) == 2 * hidden:
        parts["mlp_layer"] = "SwiGLUPacked"
    if parts.get("pre_norm"):
        parts |= CLIP
    bias = weights.get("blocks.0.attn.qkv.bias")
    masked = {} if bias is None or bias.chunk(3)[1].any() else dict(k_bias=False)
    if "pos_embed" not in weights:
        _require(weights, "DINOv3", "reg_token")  # others have other rotary positions
        return parts | DINOV3 | masked
    if "mlp_layer" in parts and "init_values" not in parts and masked:
        parts |= EVA02 | masked
    prefix, (rows, columns) = position_grid(weights, recorded)
    if prefix != 1 + parts.get("reg_tokens", 0):
        parts["no_embed_class"] = True
    size = (rows * patch, columns * patch)
    return parts | dict(img_size=size[0] if rows == columns else size)


def _vit_stages(
    weights: Mapping[str, Tensor], width: int, head_dim: int, given: Stages | None
) -> tuple[int, ...]:
    recycling = _recycling(weights)
    narrow = [proj.shape[1] for proj in recycling]
    if given is None:  # the last projection of the authors' files leads to the full width
        widths = [*narrow, len(recycling[-1]) if recycling else width]
    else:
        single = all(isinstance(heads, Integral) for heads in given)
        check(single, "thinking_stages", given, "one number of heads for each stage of a ViT")
        widths = [head_dim * heads for heads in given]
        if narrow and narrow != widths[:-1]:
            raise CheckpointError(
                f"thinking_stages={tuple(given)} with heads of {head_dim} channels are widths "
                f"{widths}, but the weights recycle from widths {narrow}"
            )
    increase = all(a < b for a, b in pairwise([*widths, width + 1]))
    if not increase or any(w % head_dim for w in widths):
        raise CheckpointError(
            f"stages of {widths} channels do not fit a network of {width} channels with heads of "
            f"{head_dim} channels: they must increase and be multiples"
        )
    return tuple(w // head_dim for w in widths)


def _read_swin(weights: Mapping[str, Tensor], given: Stages | None, slicing: str) -> dict:
    blocks = _numbers(weights, r"layers\.(\d+)\.blocks\.(\d+)\.")
    levels = range(1 + max(level for level, _ in blocks))
    depths = tuple(1 + max((i for at, i in blocks if at == level), default=-1) for level in levels)
    first = [f"layers.{level}.blocks.0" for level in levels]
    tables = [f"{block}.attn.relative_position_bias_table" for block in first]
    norms = [f"{block}.norm1.weight" for block in first]
    _require(weights, "Swin", _PATCHES, *norms, *tables, "layers.0.blocks.0.mlp.fc1.weight")
    width, channels, patch, _ = weights[_PATCHES].shape
    dims = [len(weights[name]) for name in norms]
    if not doubles(dims) or dims[0] != width:
        raise CheckpointError(
            f"levels of {dims} channels after a patch embedding of {width}: "
            "a ThinkingSwin starts with that width and doubles it from level to level"
        )
    full = tuple(weights[name].shape[1] for name in tables)
    stages = _swin_stages(weights, dims, full, given)
    last = [w // n * h for w, n, h in zip(dims, full, stages[-1], strict=True)]
    # the leading reading normalises patches at the full width of the first level
    if doubles(last) and (slicing == "grouped" or last[0] == width):
        width, full = last[0], stages[-1]
    maps = [level for level in levels[:-1] if f"norm{level}.weight" in weights]
    return dict(
        in_channels=channels,
        embed_dims=width,
        patch_size=patch,
        window_size=_window(weights),
        mlp_ratio=len(weights["layers.0.blocks.0.mlp.fc1.weight"]) / dims[0],
        depths=depths,
        num_heads=full,
        out_indices=(*maps, levels[-1]),
        qkv_bias="layers.0.blocks.0.attn.qkv.bias" in weights,
        thinking_stages=stages,
        num_classes=len(weights.get("head.weight", ())),
    )


def doubles(dims: Sequence[int]) -> bool:
    """Return whether widths double from level to level, as in a plain Swin."""
    return all(dim == dims[0] * 2**level for level, dim in enumerate(dims))


def _swin_stages(
    weights: Mapping[str, Tensor], dims: Sequence[int], full: Sequence[int], given: Stages | None
) -> tuple[tuple[int, ...], ...]:
    found = [(proj.shape[1], len(proj)) for proj in _recycling(weights)]
    if given is None and found:
        heads = [narrow * full[-1] // dims[-1] for narrow, _ in found]
        raise CheckpointError(
            f"name thinking_stages, such as 3,3,6,12 3,6,12,24, for {len(found) + 1} stages: full "
            f"width is {','.join(map(str, full))}, the stages before the last have "
            f"{', '.join(map(str, heads))} heads at the last level"
        )
    given = given or (full,)
    fits = all(isinstance(heads, Sequence) and len(heads) == len(full) for heads in given)
    check(fits, "thinking_stages", given, f"for each stage the heads of its {len(full)} levels")
    wanted = [
        (narrow[-1] * dims[-1] // full[-1], wide[0] * dims[0] // full[0])
        for narrow, wide in pairwise(given)
    ]
    if found and found != wanted:
        raise CheckpointError(
            f"thinking_stages={given} recycle from and to widths {wanted}, the weights from and "
            f"to {found}"
        )
    return tuple(map(tuple, given))


def _window(weights: Mapping[str, Tensor]) -> int:
    tables = (v for k, v in weights.items() if k.endswith(".relative_position_bias_table"))
    lengths = sorted(set(map(len, tables)))
    sides = {square(length, "a table of {} relative positions") for length in lengths}
    if len(sides) > 1 or not sides.isdisjoint(range(0, max(sides) + 1, 2)):
        raise CheckpointError(
            f"tables of {', '.join(map(str, lengths))} relative positions: a ThinkingSwin has one "
            "square window for all levels, w x w tokens with (2 w - 1)^2 relative positions"
        )
    return (sides.pop() + 1) // 2


def _recycling(weights: Mapping[str, Tensor]) -> list[Tensor]:
    """The projections of recycled tokens, from narrow to wide."""
    indices = _numbers(weights, r"recycle\.(\d+)\.proj\.weight$")
    return [weights[f"recycle.{index}.proj.weight"] for (index,) in indices]


def _numbers(names: Mapping[str, Tensor], pattern: str) -> list[tuple[int, ...]]:
    """The numbers in names that match, ascending."""
    matches = (re.match(pattern, name) for name in names)
    return sorted({tuple(map(int, match.groups())) for match in matches if match})
