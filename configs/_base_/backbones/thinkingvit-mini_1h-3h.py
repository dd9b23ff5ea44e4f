# For training on a CPU in minutes, on small images: heads of 32 channels, four blocks.
_base_ = "./thinkingvit.py"
out_channels = 96
backbone = dict(
    embed_dims=out_channels,
    num_heads=3,
    num_layers=4,
    thinking_stages=(1, 3),
    drop_path_rate=0.0,
)
