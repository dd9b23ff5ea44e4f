# Fine-tuning on one CPU core.
_base_ = "./adamw_700.py"
max_iters = 800
optim_wrapper = dict(type="AutocastOptimWrapper", optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(type="CosineAnnealingLR", eta_min=1e-6, begin=50, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=100, max_keep_ckpts=1))
