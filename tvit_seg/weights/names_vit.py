"""Names of ViT checkpoints: ours, and those of the authors and mmseg.

Ours are timm's (``blocks.N.attn.qkv``, ...) plus ``recycle.I.{proj,scale}`` and
``pruning.predictors.K``; decode heads keep mmseg's. Tables are read from right to left to convert
weights to ours, and from left to right for the way back; ``#`` stands for a number. The first row
that a name starts with applies.
"""

AUTHORS_SEGMENTATION = "authors' segmentation weights"

SIGNS = {
    AUTHORS_SEGMENTATION: (r"^encoder\._thinking_", "encoder._thinking_*"),
    "authors' ThinkingViT weights": (
        r"^(alpha\.\d+|proj_layer\d*\..*)$",
        "alpha.N or proj_layer*.weight",
    ),
    "mmseg ViT weights": (r"(^|\.)layers\.\d+\.ln1\.weight$", "layers.N.ln1.weight"),
    "distilled DeiT weights": (r"(^|\.)dist_token$", "dist_token"),
    "timm ViT weights": (
        r"(^|(?<!\d)\.)blocks\.\d+\.attn\.qkv\.weight$",
        "blocks.N.attn.qkv.weight",
    ),
}
"""Names that only this kind has, as a pattern and to read; to be tried in this order."""

_BLOCK = [
    ("norm1.", "ln1."),
    ("norm2.", "ln2."),
    ("attn.qkv.", "attn.attn.in_proj_"),
    ("attn.proj.", "attn.attn.out_proj."),
    ("mlp.fc1.", "ffn.layers.0.0."),
    ("mlp.fc2.", "ffn.layers.1."),
]
"""Parts of a block, in timm and in mmseg."""

MMSEG = [
    ("patch_embed.proj.", "patch_embed.projection."),
    ("norm.", "ln1."),
    *((f"blocks.#.{timm}", f"layers.#.{mmseg}") for timm, mmseg in _BLOCK),
    ("blocks.#.", "layers.#."),
]

AUTHORS = [
    ("recycle.#.scale", "alpha.#"),
    ("recycle.0.proj.", "proj_layer."),
    *((f"recycle.{i}.proj.", f"proj_layer{i + 1}.") for i in range(1, 12)),
    ("pruning.predictors.", "score_predictor."),
]

AUTHORS_ENCODER = [
    ("recycle.#.scale", "_thinking_alphas.#"),
    ("recycle.#.proj.", "_thinking_proj_layers.#."),
    ("pruning.predictors.", "score_predictor."),
]

AUTHORS_DECODER = [
    ("dec_proj.", "proj_dec."),
    ("patch_proj.weight", "proj_patch"),
    ("classes_proj.weight", "proj_classes"),
    ("conv_seg.", "head."),
    *((f"layers.#.{mmseg}", f"blocks.#.{timm}") for timm, mmseg in _BLOCK),
    ("layers.#.", "blocks.#."),
    *((name, name) for name in ("cls_emb", "decoder_norm.", "mask_norm.")),
]
"""Segmenter's linear and mask heads, all that the authors' code has."""

EVERYBODY = [*AUTHORS, *AUTHORS_ENCODER, *MMSEG]
"""To read a backbone of any kind."""
