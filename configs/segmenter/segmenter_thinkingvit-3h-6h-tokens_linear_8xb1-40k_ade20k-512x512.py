# Trains token-level thinking in a trained model, at a tenth of its learning rate: load_from names
# its checkpoint.
_base_ = [
    "./segmenter_thinkingvit-3h-6h_linear_8xb1-160k_ade20k-512x512.py",
    "../_base_/pruning/uncertainty.py",
]
max_iters = 40000
model = dict(backbone=dict(pruning=_base_.pruning))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(type="PolyLR", power=0.9, eta_min=1e-6, begin=0, end=max_iters, by_epoch=False)
]
train_cfg = dict(max_iters=max_iters, val_interval=4000)
default_hooks = dict(checkpoint=dict(interval=4000))
