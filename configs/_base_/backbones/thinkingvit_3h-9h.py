_base_ = "./thinkingvit.py"
out_channels = 576
backbone = dict(embed_dims=out_channels, num_heads=9, thinking_stages=(3, 9))
