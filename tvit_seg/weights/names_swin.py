"""Names of Swin checkpoints: the authors', timm's, Microsoft's and mmseg's to ours.

Ours are timm's, plus ``norm{level}`` for the maps of all levels but the last (mmseg has them too)
and ``recycle.I.{upsample,proj,scale}``.
"""

import re
from collections.abc import Mapping

from torch import Tensor

_TABLE = r"(^|\.)(layers|stages)\.\d+\.blocks\.\d+\.attn\.(w_msa\.)?relative_position_bias_table$"

AUTHORS_SWIN = "authors' ThinkingSwin weights"

_MMSEG_QKV = r"(^|\.)stages\.\d+\.blocks\.\d+\.attn\.w_msa\.qkv\.weight$"

SIGNS = {
    AUTHORS_SWIN: (r"^proj_layer\d*\.upsample\.weight$", "proj_layer*.upsample.weight"),
    "mmseg Swin weights": (_MMSEG_QKV, "stages.N.blocks.N.attn.w_msa.qkv.weight"),
    "timm Swin weights": (_TABLE, "layers.N.blocks.N.attn.relative_position_bias_table"),
}
"""Names that only this family has, as a pattern and to read; to be tried in this order."""

_NAMES = [
    # the authors'
    (r"^alpha\.(\d+)$", r"recycle.\1.scale"),
    (r"^proj_layer(\d*)\.", lambda m: f"recycle.{int(m[1] or 1) - 1}."),
    # timm's
    (r"^head\.fc\.", "head."),
    # mmseg's
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^stages\.(\d+)\.", r"layers.\1."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
]


def is_swin(weights: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of some Swin transformer."""
    return any(re.search(_TABLE, name) for name in weights)


def rename_swin(weights: Mapping[str, Tensor], dropped: dict[str, str]) -> dict[str, Tensor]:
    """Our names for all of a Swin checkpoint.

    Args:
        weights: With or without ``backbone.`` in front; what belongs to decode heads passes.
        dropped: Names that are left out are added, with the reason.

    Returns:
        The weights under our names, in the order that our patch merging has.
    """
    levels = 1 + max(int(m[1]) for m in map(_level, weights) if m)
    unfolded = any(re.search(_MMSEG_QKV, name) for name in weights)
    # all but today's timm count the merging of patches to the level before it
    early = any(re.search(r"(^|\.)(layers|stages)\.0\.downsample\.", name) for name in weights)
    renamed = {}
    for name, value in weights.items():
        if name.endswith((".relative_position_index", ".attn_mask")):
            dropped[name] = "computed, not learned"
            continue
        head, _, rest = name.rpartition("backbone.")
        if re.match(r"(decode|auxiliary)_head\.", name):
            renamed[name] = value
            continue
        for pattern, replacement in _NAMES:
            rest = re.sub(pattern, replacement, rest)
        rest = re.sub(rf"^norm{levels - 1}\.", "norm.", rest)
        if ".downsample." in rest:
            if early:
                rest = re.sub(r"^layers\.(\d+)", lambda m: f"layers.{int(m[1]) + 1}", rest)
            if unfolded:
                value = _fold(value)
        renamed[f"{head}backbone.{rest}" if "backbone." in name else rest] = value
    return renamed


def _level(name: str) -> re.Match | None:
    return re.search(r"(?:^|\.)(?:layers|stages)\.(\d+)\.blocks\.", name)


def _fold(value: Tensor) -> Tensor:
    """Input columns in the order of patches that timm merges, from that of ``nn.Unfold``.

    Args:
        value: (..., 4 C), channels first, then rows, then columns of the 2 x 2 patches.

    Returns:
        (..., 4 C), columns first, then rows, then channels.
    """
    return value.unflatten(-1, (-1, 2, 2)).transpose(-1, -3).flatten(-3)
