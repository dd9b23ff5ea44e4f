_base_ = "./thinkingvit.py"
out_channels = 768
backbone = dict(embed_dims=out_channels, num_heads=12, thinking_stages=(3, 12))
