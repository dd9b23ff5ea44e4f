"""Names of Swin checkpoints: ours, and those of other code bases.

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
    "transformers Swin weights": (
        r"(^|\.)encoder\.layers\.\d+\.blocks\.\d+\.attention\..*relative_position_bias_table$",
        "encoder.layers.N.blocks.N.attention.*.relative_position_bias_table",
    ),
    "torchvision Swin weights": (
        r"(^|\.)features\.\d+\.\d+\.attn\.relative_position_bias_table$",
        "features.N.N.attn.relative_position_bias_table",
    ),
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


def _blocks(block: str, parts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(f"layers.#.blocks.#.{ours}", f"{block}.{theirs}") for ours, theirs in parts]


TRANSFORMERS = [
    ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
    ("patch_embed.norm.", "embeddings.norm."),
    ("absolute_pos_embed", "embeddings.position_embeddings"),
    ("mask_token", "embeddings.mask_token"),
    ("norm.", "layernorm."),
    *((f"layers.{i + 1}.downsample.", f"encoder.layers.{i}.downsample.") for i in _LEVELS),
    *_blocks(
        "encoder.layers.#.blocks.#",
        [
            *(
                (f"attn.{name[0]}.", f"attention.self.{name}.")
                for name in ("query", "key", "value")
            ),
            *((f"attn.{part}.", f"attention.{part}_proj.") for part in "qkv"),
            ("attn.proj.", "attention.output.dense."),
            ("attn.proj.", "attention.o_proj."),
            ("attn.", "attention.self."),
            ("attn.", "attention.relative_position_bias."),
            ("norm1.", "layernorm_before."),
            ("norm2.", "layernorm_after."),
            ("mlp.fc1.", "intermediate.dense."),
            ("mlp.fc2.", "output.dense."),
            ("", ""),
        ],
    ),
]

TORCHVISION = [
    ("patch_embed.proj.", "features.0.0."),
    ("patch_embed.norm.", "features.0.2."),
    *(
        row
        for i in _LEVELS
        for row in (
            (f"layers.{i}.blocks.#.mlp.fc1.", f"features.{2 * i + 1}.#.mlp.0."),
            (f"layers.{i}.blocks.#.mlp.fc2.", f"features.{2 * i + 1}.#.mlp.3."),
            (f"layers.{i}.blocks.#.", f"features.{2 * i + 1}.#."),
            (f"layers.{i + 1}.downsample.", f"features.{2 * i + 2}."),
        )
    ),
]


def is_swin(names: Iterable[str]) -> bool:
    """Return whether the names, ours, are those of a Swin transformer."""
    return any(re.search(_TABLE, name) for name in names)


def last_norm(names: Iterable[str]) -> tuple[str, str]:
    """Name the final norm in timm and in mmseg, which numbers it with those of the maps."""
    level = max(int(match[2]) for match in (re.search(_LEVEL, name) for name in names) if match)
    return "norm.", f"norm{level}."


def everybody(names: Iterable[str]) -> list[tuple[str, str]]:
    """Choose the rows for a Swin backbone of any kind, including current timm's."""
    names = list(names)
    table = [*AUTHORS, *TRANSFORMERS, *TORCHVISION, *MMSEG]
    if any(re.search(r"(^|\.)layers\.0\.downsample\.", name) for name in names):
        table += MICROSOFT
    if any(re.search(_MMSEG_QKV, name) for name in names):
        table.append(last_norm(names))
    return table
