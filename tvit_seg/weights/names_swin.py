"""Names of Swin checkpoints: ours, and those of the authors, timm, Microsoft and mmseg.

Ours are timm's, plus ``norm{level}`` for the maps of all levels but the last (mmseg has them too)
and ``recycle.I.{upsample,proj,scale}``. Tables are as in :mod:`.names_vit`.
"""

import re
from collections.abc import Iterable

AUTHORS_SWIN = "authors' ThinkingSwin weights"
MMSEG_SWIN = "mmseg Swin weights"

_TABLE = r"(^|\.)(layers|stages)\.\d+\.blocks\.\d+\.attn\.(w_msa\.)?relative_position_bias_table$"
_MMSEG_QKV = r"(^|\.)stages\.\d+\.blocks\.\d+\.attn\.w_msa\.qkv\.weight$"
_LEVEL = r"(^|\.)(?:layers|stages)\.(\d+)\.blocks\."

SIGNS = {
    AUTHORS_SWIN: (r"^proj_layer\d*\.upsample\.weight$", "proj_layer*.upsample.weight"),
    MMSEG_SWIN: (_MMSEG_QKV, "stages.N.blocks.N.attn.w_msa.qkv.weight"),
    "timm Swin weights": (_TABLE, "layers.N.blocks.N.attn.relative_position_bias_table"),
}
"""Names that only this kind has, as a pattern and to read; to be tried in this order."""

TIMM = [("head.", "head.fc.")]

AUTHORS = [
    *TIMM,
    ("recycle.#.scale", "alpha.#"),
    ("recycle.0.", "proj_layer."),
    *((f"recycle.{i}.", f"proj_layer{i + 1}.") for i in range(1, 12)),
]

_LEVELS = range(8)

# all but current timm assign patch merging to the level before it
MICROSOFT = [(f"layers.{i + 1}.downsample.", f"layers.{i}.downsample.") for i in _LEVELS]

MMSEG = [
    ("patch_embed.proj.", "patch_embed.projection."),
    *((f"layers.{i + 1}.downsample.", f"stages.{i}.downsample.") for i in _LEVELS),
    ("layers.#.blocks.#.attn.", "stages.#.blocks.#.attn.w_msa."),
    ("layers.#.blocks.#.mlp.fc1.", "stages.#.blocks.#.ffn.layers.0.0."),
    ("layers.#.blocks.#.mlp.fc2.", "stages.#.blocks.#.ffn.layers.1."),
    ("layers.#.", "stages.#."),
]


def is_swin(names: Iterable[str]) -> bool:
    """Return whether the names are those of a Swin transformer."""
    return any(re.search(_TABLE, name) for name in names)


def last_norm(names: Iterable[str]) -> tuple[str, str]:
    """Name the final norm in timm and in mmseg, which numbers it with those of the maps."""
    level = max(int(match[2]) for match in (re.search(_LEVEL, name) for name in names) if match)
    return "norm.", f"norm{level}."


def everybody(names: Iterable[str]) -> list[tuple[str, str]]:
    """Choose the rows for a Swin backbone of any kind, including current timm's."""
    names = list(names)
    early = any(re.search(r"(^|\.)layers\.0\.downsample\.", name) for name in names)
    return [*AUTHORS, *MMSEG, *(MICROSOFT if early else []), last_norm(names)]
