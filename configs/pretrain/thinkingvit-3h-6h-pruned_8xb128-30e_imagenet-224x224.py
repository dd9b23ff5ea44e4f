# Trains token pruning in the pretrained model, at a tenth of its learning rate: load_from names
# its checkpoint.
_base_ = [
    "./thinkingvit-3h-6h_8xb128-300e_imagenet-224x224.py",
    "../_base_/pruning/dynamic.py",
]
max_epochs = 30
model = dict(
    pretrained=None,
    backbone=dict(pruning=dict(locations=(3, 6, 9), **_base_.pruning)),
)
optim_wrapper = dict(optimizer=dict(lr=5e-5), paramwise_cfg=_base_.paramwise_cfg)
param_scheduler = [
    dict(
        type="CosineAnnealingLR",
        eta_min_ratio=0.01,
        begin=0,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1))
custom_hooks = [dict(type="EMAHook", momentum=4e-4)]
