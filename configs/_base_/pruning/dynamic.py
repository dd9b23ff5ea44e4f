# DynamicViT in the last stage; top-level configs set the locations, since depths differ.
pruning = dict(type="DynamicPruning", keep_ratio=0.7)
# a higher rate for the score predictors, the only weights not from a trained model
paramwise_cfg = dict(custom_keys={"pruning.predictors": dict(lr_mult=10.0)})
