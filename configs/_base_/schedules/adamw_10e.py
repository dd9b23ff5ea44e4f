# A few minutes of training from scratch on a CPU.
_base_ = "./adamw_300e.py"
max_epochs = 10
optim_wrapper = dict(optimizer=dict(lr=1.5e-3, betas=(0.9, 0.99)), clip_grad=dict(max_norm=1.0))
auto_scale_lr = dict(base_batch_size=128)
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-2,
        begin=0,
        end=1,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        eta_min_ratio=1 / 150,
        begin=1,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
default_hooks = dict(checkpoint=dict(interval=1))
# averages over about one epoch
custom_hooks = [dict(type="EMAHook", momentum=4e-3)]
