# Image gate and token-level thinking from one training: keep_ratio 1 is the image gate alone.
_base_ = [
    "./segmenter_thinkingvit-small-3h-6h_linear_1xb16-800_labelmefacade-224x224.py",
    "../_base_/pruning/uncertainty.py",
]
model = dict(backbone=dict(pruning=_base_.pruning))
