# Stages share weights only: the scale of the recycled tokens, which starts at 0, is not trained.
# The checkpoint must come without "recycle.*"; see docs/labelmefacade.md.
_base_ = "./segmenter_thinkingvit-small-3h-6h_linear_1xb16-800_labelmefacade-224x224.py"
optim_wrapper = dict(
    constructor="LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(custom_keys={"recycle.": dict(lr_mult=0.0)}),
)
