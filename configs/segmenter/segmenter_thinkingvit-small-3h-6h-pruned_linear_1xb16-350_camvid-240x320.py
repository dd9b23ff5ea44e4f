# Trains token pruning in a trained model: load_from names its checkpoint.
_base_ = [
    "./segmenter_thinkingvit-small-3h-6h_linear_1xb16-1500_camvid-240x320.py",
    "../_base_/pruning/dynamic.py",
]
max_iters = 350
model = dict(backbone=dict(pruning=dict(locations=(2, 4, 6), **_base_.pruning)))
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=_base_.paramwise_cfg)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type="CosineAnnealingLR", eta_min=1e-6, begin=20, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
