# mmseg's ViT of one head, the width of thinkingvit-small's first stage where that has one.
_base_ = "./vit-small_6h.py"
out_channels = 32
backbone = dict(embed_dims=out_channels, num_heads=1)
