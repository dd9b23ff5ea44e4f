_base_ = "./thinkingvit.py"
out_channels = 384
backbone = dict(embed_dims=out_channels, num_heads=6, thinking_stages=(2, 3, 6))
