# For training from scratch on a CPU: half as wide as the published 3H-6H, half as deep.
_base_ = './thinkingvit.py'
out_channels = 192
backbone = dict(
    embed_dims=out_channels,
    num_heads=6,
    num_layers=6,
    thinking_stages=(3, 6),
    drop_path_rate=0.0)
