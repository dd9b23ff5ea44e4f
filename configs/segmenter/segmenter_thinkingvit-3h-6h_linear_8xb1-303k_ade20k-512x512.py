# The authors' schedule: 120 epochs of ADE20K.
_base_ = "./segmenter_thinkingvit-3h-6h_linear_8xb1-160k_ade20k-512x512.py"
max_iters = 303000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type="PolyLR", power=0.9, eta_min=1e-5, begin=0, end=max_iters, by_epoch=False)
]
