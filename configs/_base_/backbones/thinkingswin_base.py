_base_ = "./thinkingswin.py"
out_channels = [128, 256, 512, 1024]
backbone = dict(
    embed_dims=out_channels[0],
    depths=(2, 2, 18, 2),
    thinking_stages=((4, 4, 8, 16), (4, 8, 16, 32)),
)
