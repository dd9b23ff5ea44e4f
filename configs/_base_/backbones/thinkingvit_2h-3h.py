_base_ = "./thinkingvit.py"
out_channels = 192
backbone = dict(embed_dims=out_channels, num_heads=3, thinking_stages=(2, 3))
