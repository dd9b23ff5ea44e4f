# For training on a CPU in minutes: heads of 32 channels, four blocks.
_base_ = "./thinkingvit.py"
out_channels = 128
backbone = dict(
    embed_dims=out_channels,
    num_heads=4,
    num_layers=4,
    thinking_stages=(1, 4),
    drop_path_rate=0.0,
)
