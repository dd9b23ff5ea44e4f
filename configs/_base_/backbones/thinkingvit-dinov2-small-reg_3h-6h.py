# DINOv2 ViT-S/14 with registers: images of 512 pixels are padded to 37 x 37 patches, those of
# its pre-training.
_base_ = "./thinkingvit.py"
out_channels = 384
backbone = dict(arch="dinov2_small_reg", thinking_stages=(3, 6))
