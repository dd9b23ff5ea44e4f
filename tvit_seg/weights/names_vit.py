"""Names of ViT checkpoints: ours, and those of other code bases.

Ours are timm's (``blocks.N.attn.qkv``, ...) plus ``recycle.I.{proj,scale}`` and
``pruning.predictors.K``; decode heads keep mmseg's. Tables are read from right to left to convert
weights to ours, and from left to right for the way back; ``#`` stands for a number. The first row
that a name starts with applies. Separate ``attn.{q,k,v}`` are joined to ``attn.qkv`` afterwards,
see :mod:`.canonical`.
"""

AUTHORS_SEGMENTATION = "authors' segmentation weights"

SIGNS = {
    AUTHORS_SEGMENTATION: (r"^_thinking_", "encoder._thinking_*"),
    "authors' ThinkingViT weights": (
        r"^(alpha\.\d+|proj_layer\d*\..*)$",
        "alpha.N or proj_layer*.weight",
    ),
    "mmseg ViT weights": (r"(^|\.)layers\.\d+\.ln1\.weight$", "layers.N.ln1.weight"),
    "distilled DeiT weights": (r"(^|\.)dist_token$", "dist_token"),
    "transformers ViT weights": (
        r"(^|\.)embeddings\.patch_embeddings?\.",
        "embeddings.patch_embeddings.*",
    ),
    "torchvision ViT weights": (
        r"(^|\.)encoder\.layers\.encoder_layer_\d+\.ln_1\.weight$",
        "encoder.layers.encoder_layer_N.ln_1.weight",
    ),
    "CLIP weights": (
        r"(^|\.)transformer\.resblocks\.\d+\.ln_1\.weight$",
        "transformer.resblocks.N.ln_1.weight",
    ),
    "Google's ViT weights": (
        r"(^|\.)Transformer\.encoderblock_\d+\.LayerNorm_0\.",
        "Transformer/encoderblock_N/LayerNorm_0",
    ),
    "timm ViT weights": (
        r"(^|(?<!\d)\.)blocks\.\d+\.attn\.(qkv|q|q_proj)\.weight$",
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


def _blocks(block: str, parts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(f"blocks.#.{ours}", f"{block}.{theirs}") for ours, theirs in parts]


_SEPARATE = [
    *((f"attn.{part}.", f"attn.{part}_proj.") for part in "qkv"),
    *((f"attn.{part}.bias", f"attn.{part}_bias") for part in "qkv"),
]
"""Query, key and value of EVA and BEiT in timm."""

DINO = [
    ("reg_token", "register_tokens"),
    ("reg_token", "storage_tokens"),
    ("rope.", "rope_embed."),
    *_blocks("blocks.#", [*_SEPARATE, ("mlp.fc1.", "mlp.w12.")]),
    *_blocks("blocks.#", [("mlp.fc1_g.", "mlp.w1."), ("mlp.fc1_x.", "mlp.w2.")]),
    *_blocks("blocks.#", [("mlp.fc2.", "mlp.w3."), ("mlp.norm.", "mlp.ffn_ln.")]),
    *_blocks("blocks.#", [("attn.norm.", "attn.inner_attn_ln.")]),
]
"""Facebook's DINOv2 and DINOv3, BAAI's EVA, and timm where it has several names for a part."""

MMPRETRAIN = [
    ("norm_pre.", "pre_norm."),
    ("fc_norm.", "ln2."),
    *_blocks("layers.#", [("mlp.fc1.", "ffn.w12."), ("mlp.fc2.", "ffn.w3."), *_SEPARATE]),
]

_TRANSFORMERS_BLOCK = [
    ("attn.q.", "attention.attention.query."),
    ("attn.k.", "attention.attention.key."),
    ("attn.v.", "attention.attention.value."),
    ("attn.proj.", "attention.output.dense."),
    *((f"attn.{part}.", f"attention.{part}_proj.") for part in "qkv"),
    *((f"attn.{part}.", f"self_attn.{part}_proj.") for part in "qkv"),
    ("attn.proj.", "attention.o_proj."),
    ("attn.proj.", "self_attn.out_proj."),
    *(("norm1.", name) for name in ("layernorm_before.", "layer_norm1.", "norm1.")),
    *(("norm2.", name) for name in ("layernorm_after.", "layer_norm2.", "norm2.")),
    ("mlp.fc1.", "intermediate.dense."),
    ("mlp.fc2.", "output.dense."),
    ("mlp.fc1.", "mlp.weights_in."),
    ("mlp.fc2.", "mlp.weights_out."),
    ("mlp.fc1_g.", "mlp.gate_proj."),
    ("mlp.fc1_x.", "mlp.up_proj."),  # without a gate mlp.fc1
    ("mlp.fc2.", "mlp.down_proj."),
    ("", ""),
]
_LAYERS = ("encoder.layer.#", "encoder.layers.#", "model.layer.#", "layer.#")

TRANSFORMERS = [
    *(
        ("patch_embed.proj.", f"embeddings.{name}.")
        for name in ("patch_embeddings.projection", "patch_embeddings", "patch_embedding")
    ),
    ("cls_token", "embeddings.cls_token"),
    ("cls_token", "embeddings.class_embedding"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("pos_embed", "embeddings.position_embedding.weight"),
    ("reg_token", "embeddings.register_tokens"),
    ("dist_token", "embeddings.distillation_token"),
    ("mask_token", "embeddings.mask_token"),
    ("norm_pre.", "pre_layrnorm."),
    ("norm.", "layernorm."),
    ("norm.", "post_layernorm."),
    *(row for layer in _LAYERS for row in _blocks(layer, _TRANSFORMERS_BLOCK)),
    *_blocks("layers.#", _TRANSFORMERS_BLOCK[:-1]),
]
"""ViT, DeiT, DINOv2 (with registers), DINOv3 and the image encoders of CLIP and SigLIP."""

TORCHVISION = [
    ("patch_embed.proj.", "conv_proj."),
    ("cls_token", "class_token"),
    ("pos_embed", "encoder.pos_embedding"),
    ("norm.", "encoder.ln."),
    ("head.", "heads.head."),
    ("pre_logits.", "heads.pre_logits."),
    *_blocks(
        "encoder.layers.encoder_layer_#",
        [
            ("norm1.", "ln_1."),
            ("norm2.", "ln_2."),
            ("attn.qkv.", "self_attention.in_proj_"),
            ("attn.proj.", "self_attention.out_proj."),
            ("mlp.fc1.", "mlp.0."),
            ("mlp.fc2.", "mlp.3."),
            ("mlp.fc1.", "mlp.linear_1."),
            ("mlp.fc2.", "mlp.linear_2."),
        ],
    ),
]

CLIP = [
    ("patch_embed.proj.", "conv1."),
    ("cls_token", "class_embedding"),
    ("pos_embed", "positional_embedding"),
    ("norm_pre.", "ln_pre."),
    ("norm.", "ln_post."),
    *_blocks(
        "transformer.resblocks.#",
        [
            ("norm1.", "ln_1."),
            ("norm2.", "ln_2."),
            ("attn.qkv.", "attn.in_proj_"),
            ("attn.proj.", "attn.out_proj."),
            ("mlp.fc1.", "mlp.c_fc."),
            ("mlp.fc2.", "mlp.c_proj."),
            ("", ""),
        ],
    ),
]
"""Image encoders of OpenAI's CLIP and of open_clip."""

GOOGLE = [
    ("patch_embed.proj.", "embedding."),
    ("pos_embed", "Transformer.posembed_input.pos_embedding"),
    ("norm.", "Transformer.encoder_norm."),
    *_blocks(
        "Transformer.encoderblock_#",
        [
            ("norm1.", "LayerNorm_0."),
            ("norm2.", "LayerNorm_2."),
            *(
                (f"attn.{name[0]}.", f"MultiHeadDotProductAttention_1.{name}.")
                for name in ("query", "key", "value")
            ),
            ("attn.proj.", "MultiHeadDotProductAttention_1.out."),
            ("mlp.fc1.", "MlpBlock_3.Dense_0."),
            ("mlp.fc2.", "MlpBlock_3.Dense_1."),
        ],
    ),
]
"""The ``.npz`` files of ViT and AugReg, with dots for slashes."""

EVERYBODY = [
    *AUTHORS,
    *AUTHORS_ENCODER,
    *DINO,
    *MMPRETRAIN,
    *TRANSFORMERS,
    *TORCHVISION,
    *CLIP,
    *GOOGLE,
    *MMSEG,
]
"""To read a backbone of any kind."""
