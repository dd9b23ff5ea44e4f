# DINOv3 ViT-S/16.
_base_ = "./thinkingvit.py"
out_channels = 384
backbone = dict(arch="dinov3_small", thinking_stages=(3, 6))
