# DeiT's recipe. The learning rate is for 512 images per step and scales with their number.
# It decays to 1e-5 for 1024 images; with layer decay, every layer's rate by the same factor.
_base_ = "./common_epochs.py"
max_epochs = 300
warmup_epochs = 5
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=5e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
auto_scale_lr = dict(enable=True, base_batch_size=512)
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-3,
        begin=0,
        end=warmup_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        eta_min_ratio=0.01,
        begin=warmup_epochs,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=10))
# mmengine's momentum is 1 minus DeiT's decay, 0.99996; with accumulative_counts=k add interval=k
custom_hooks = [dict(type="EMAHook", momentum=4e-5)]
