"""Vision transformers of today, as timm builds them, with random parameters."""

import re

import timm
import torch

from tvit_seg.models.layers import KeyMaskedLinear

HEADS, DEPTH = 2, 2
"""Instead of those of the published networks."""

TIMM = dict(
    clip_base=("vit_base_patch16_clip_224", 64),
    clip_base_openai=("vit_base_patch16_clip_quickgelu_224", 64),
    deit3_small=("deit3_small_patch16_224", 64),
    dinov2_small=("vit_small_patch14_dinov2", 56),
    dinov2_small_reg=("vit_small_patch14_reg4_dinov2", 56),
    dinov3_small=("vit_small_patch16_dinov3_qkvb", 64),
    dinov3_small_plus=("vit_small_plus_patch16_dinov3_qkvb", 64),
    eva02_base=("eva02_base_patch14_224", 56),
    eva02_tiny=("eva02_tiny_patch14_224", 56),
    mae_base=("vit_base_patch16_224", 64),
)
"""timm's name of each of our presets, and the side of an image in pixels."""


KINDS = dict(
    dinov3=dict(
        reg_tokens=4,
        k_bias=False,
        use_abs_pos_emb=False,
        rope=dict(rope_type="dinov3", temperature=100.0, rotate_half=True),
        mlp_layer="SwiGLU",
    ),
    eva=dict(
        k_bias=False,  # that, and SwiGLU without layer scale, tells the rotary positions
        mlp_layer="SwiGLUPacked",
        mlp_ratio=8 / 3,
        scale_mlp_norm=True,
        scale_attn_norm=True,
        qk_norm=True,
        init_values=None,
        rope=dict(rope_type="cat", ref_feat_shape=(16, 16)),
    ),
    clip=dict(pre_norm=True, patch_bias=False, reg_tokens=2, no_embed_class=True),
)
"""Arguments of ThinkingViT that cover all parts of these networks."""


def timm_model(arch, heads=HEADS):
    """timm's model of a preset, with heads of 64 channels."""
    name, size = TIMM[arch]
    options = dict(embed_dim=64 * heads, num_heads=heads, depth=DEPTH, img_size=size)
    model = timm.create_model(name, num_classes=0, global_pool="token", **options).eval()
    return randomize(model)


@torch.no_grad()
def randomize(model):
    """Give every parameter values that show if it is left out or cut wrongly."""
    for name, parameter in model.named_parameters():
        if name.endswith((".gamma", "gamma_1", "gamma_2", "norm.weight")) or ".norm" in name:
            parameter.uniform_(0.5, 1.5)
        elif parameter.ndim != 2 or name.endswith("embed"):
            parameter.normal_(std=0.3)
        else:
            parameter.normal_(std=parameter.shape[1] ** -0.5)
    for layer in model.modules():
        if isinstance(layer, KeyMaskedLinear):
            layer.bias.chunk(3)[1].zero_()
    return model


def under_our_names(model):
    """timm's weights, with layer scale and biases of EVA renamed and joined."""
    weights = {
        re.sub(r"gamma_(\d)$", r"ls\1.gamma", name): x for name, x in model.state_dict().items()
    }
    for name in [name for name in weights if name.endswith("attn.q_proj.weight")]:
        block = name.removesuffix("q_proj.weight")
        parts = [weights.pop(f"{block}{part}_proj.weight") for part in "qkv"]
        weights[f"{block}qkv.weight"] = torch.cat(parts)
        for part in "qv":
            weights[f"{block}{part}_bias"] = weights.pop(f"{block}{part}_proj.bias")
    for name in [name for name in weights if name.endswith("attn.q_bias")]:
        block = name.removesuffix("q_bias")
        q, v = weights.pop(name), weights.pop(f"{block}v_bias")
        weights[f"{block}qkv.bias"] = torch.cat((q, torch.zeros_like(q), v))
    return weights
