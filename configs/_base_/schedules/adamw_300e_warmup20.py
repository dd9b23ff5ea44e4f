# Swin's recipe: longer warm-up, clipped gradients.
_base_ = "./adamw_300e.py"
warmup_epochs = 20
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
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
        end=300,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
