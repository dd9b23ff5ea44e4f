# mmseg's ViT of the width of thinkingvit-small's last stage.
out_channels = 192
backbone = dict(
    type="VisionTransformer",
    embed_dims=out_channels,
    num_heads=6,
    num_layers=8,
    out_indices=-1,
    final_norm=True,
    qkv_bias=True,
    patch_bias=True,
    norm_cfg=dict(type="LN", eps=1e-6),
)
