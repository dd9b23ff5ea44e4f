# About an hour on one CPU core, in bfloat16.
_base_ = "./adamw_300e.py"
max_epochs = 20
optim_wrapper = dict(
    type="AutocastOptimWrapper", optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=1.0)
)
auto_scale_lr = dict(enable=False, base_batch_size=64)
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-3,
        begin=0,
        end=1,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        eta_min_ratio=0.01,
        begin=1,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=20))
custom_hooks = []
