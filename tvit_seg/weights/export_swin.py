"""From our Swin weights to the authors' layout, and to a plain Swin of a single stage."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from ..errors import CheckpointError
from ..models.backbones import ThinkingSwin
from .architecture import backbone_weights
from .architecture_swin import doubles, read_swin
from .convert import convert_state_dict

_MAP_NORM = re.compile(r"norm\d+\.")


def swin_to_authors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a ThinkingSwin in the layout of the authors' code.

    Args:
        weights: Of a backbone or classifier, under our names.

    Returns:
        Weights under the authors' names, without the norms of the lower levels' maps, which their
        classification code does not have.

    Raises:
        CheckpointError: If their code has no place for a weight.
    """
    if heads := [name for name in weights if re.match(r"(decode|auxiliary)_head\.", name)]:
        raise CheckpointError(
            f"the authors' code has no place for {heads[0]}: its Swin classifies only"
        )
    backbone = backbone_weights(weights)
    return {_authors_name(k): v for k, v in backbone.items() if not _MAP_NORM.match(k)}


def _authors_name(name: str) -> str:
    if match := re.fullmatch(r"recycle\.(\d+)\.(.*)", name):
        index = int(match[1])
        if match[2] == "scale":
            return f"alpha.{index}"
        return f"proj_layer{index + 1 if index else ''}.{match[2]}"
    return re.sub(r"^head\.", "head.fc.", name)


def extract_swin_stage(
    weights: Mapping[str, Tensor],
    stage: int,
    thinking_stages: Sequence[Sequence[int]] | None = None,
    slicing: str | None = None,
    kind: str = "",
    maps: bool = False,
) -> tuple[dict[str, Tensor], dict]:
    """The weights of one thinking stage, for a plain Swin of its widths.

    Args:
        weights: Of a backbone, under our names.
        stage: Index of the stage, from 0.
        thinking_stages: As in :func:`~tvit_seg.weights.architecture_swin.read_swin`.
        slicing: The same.
        kind: The same.
        maps: Whether to keep the norms of the lower levels' maps, which timm's model lacks.

    Returns:
        Weights under timm's names, and the arguments of timm's ``SwinTransformer`` for them; the
        last level of its ``img_size`` is a single window.

    Raises:
        CheckpointError: If these are no Swin weights, the stages do not go together with them, or
            the stage does not double its width from level to level, as plain models do.
        ValueError: If there is no such stage.
    """
    options = read_swin(weights, thinking_stages, slicing, kind)
    stages = options["thinking_stages"]
    if not 0 <= stage < len(stages):
        raise ValueError(f"stage={stage} must lie in [0, {len(stages) - 1}]")
    heads = stages[stage]
    full = zip(options["num_heads"], heads, strict=True)
    dims = [
        options["embed_dims"] * 2**level // most * count for level, (most, count) in enumerate(full)
    ]
    if not doubles(dims):
        raise CheckpointError(
            f"stage {stage} has levels of {dims} channels: no plain Swin, which doubles its width "
            "from level to level"
        )
    options.update(thinking_stages=(heads,), num_heads=heads, embed_dims=dims[0])
    if not maps:
        options.update(out_indices=-1)
    narrow = convert_state_dict(weights, ThinkingSwin(**options))
    plain = {re.sub(r"^head\.", "head.fc.", name): value for name, value in narrow.items()}
    model = dict(
        img_size=options["patch_size"] * 2 ** (len(heads) - 1) * options["window_size"],
        patch_size=options["patch_size"],
        in_chans=options["in_channels"],
        embed_dim=dims[0],
        depths=options["depths"],
        num_heads=heads,
        window_size=options["window_size"],
        mlp_ratio=options["mlp_ratio"],
        qkv_bias=options["qkv_bias"],
        num_classes=options["num_classes"],
    )
    return plain, model


def swin_timm_to_mmseg(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A plain Swin's weights under the names of mmseg's ``SwinTransformer``.

    Args:
        weights: Under timm's names, with or without the norms of maps. The classification head is
            left out: mmseg's has none.
    """
    levels = 1 + max(int(m[1]) for m in map(re.compile(r"layers\.(\d+)\.").match, weights) if m)
    renamed = {}
    for name, value in weights.items():
        if name.startswith("head."):
            continue
        if ".downsample." in name:  # ends a level there
            name = re.sub(r"^layers\.(\d+)", lambda m: f"layers.{int(m[1]) - 1}", name)
            value = _unfold(value)
        name = re.sub(r"^patch_embed\.proj\.", "patch_embed.projection.", name)
        name = re.sub(r"^layers\.", "stages.", name)
        name = name.replace(".attn.", ".attn.w_msa.")
        name = name.replace(".mlp.fc1.", ".ffn.layers.0.0.").replace(".mlp.fc2.", ".ffn.layers.1.")
        renamed[re.sub(r"^norm\.", f"norm{levels - 1}.", name)] = value
    return renamed


def _unfold(value: Tensor) -> Tensor:
    """Input columns in the order of ``nn.Unfold``, from that of patches that timm merges.

    Args:
        value: (..., 4 C), columns of the 2 x 2 patches first, then rows, then channels.

    Returns:
        (..., 4 C), channels first, then rows, then columns.
    """
    return value.unflatten(-1, (2, 2, -1)).transpose(-1, -3).flatten(-3)
