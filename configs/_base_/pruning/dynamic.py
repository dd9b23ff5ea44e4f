# DynamicViT in the last stage; the blocks it prunes before are in the leaf, since depths differ.
pruning = dict(type="DynamicPruning", keep_ratio=0.7)
# the score predictors start from nothing, all other weights from a trained model
paramwise_cfg = dict(custom_keys={"pruning.predictors": dict(lr_mult=10.0)})
