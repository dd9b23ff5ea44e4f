# Trains token-level thinking in the quickstart's model, in minutes on a CPU.
_base_ = ["./thinkingvit_scenes-96x96.py", "../_base_/pruning/uncertainty.py"]
load_from = "checkpoints/quickstart.pth"
max_iters = 300
model = dict(backbone=dict(pruning=_base_.pruning))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type="CosineAnnealingLR", eta_min=1e-6, begin=20, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
