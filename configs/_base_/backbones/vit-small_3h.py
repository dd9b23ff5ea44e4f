# mmseg's ViT of the width of thinkingvit-small's first stage.
_base_ = "./vit-small_6h.py"
out_channels = 96
backbone = dict(embed_dims=out_channels, num_heads=3)
