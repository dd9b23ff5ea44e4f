# Image gate and token-level thinking from one training: keep_ratio=1 is the image gate alone.
_base_ = [
    "./segmenter_thinkingvit-small-3h-6h_linear_1xb16-800_labelmefacade-224x224.py",
    "../_base_/pruning/uncertainty.py",
]
# With 3 heads stage 0 is nearly as good as stage 1 after so short a training. Half of the
# validation photos continue.
gate = dict(_delete_=True, type="PixelEntropyGate", threshold=1.11, resolution="token")
model = dict(backbone=dict(thinking_stages=(1, 6), gate=gate, pruning=_base_.pruning))
