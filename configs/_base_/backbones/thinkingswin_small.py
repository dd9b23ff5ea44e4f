# The published ThinkingSwin.
_base_ = "./thinkingswin.py"
out_channels = [96, 192, 384, 768]
backbone = dict(
    embed_dims=out_channels[0],
    depths=(2, 2, 18, 2),
    thinking_stages=((3, 3, 6, 12), (3, 6, 12, 24)),
)
