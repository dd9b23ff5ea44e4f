# Token pruning trained from the start of fine-tuning.
_base_ = [
    "./segmenter_thinkingvit-small-3h-6h_linear_1xb16-800_labelmefacade-224x224.py",
    "../_base_/pruning/dynamic.py",
]
model = dict(backbone=dict(pruning=dict(locations=(2, 4, 6), **_base_.pruning)))
optim_wrapper = dict(paramwise_cfg=_base_.paramwise_cfg)
