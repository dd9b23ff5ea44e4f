# The last stage runs on the tokens that the one before is least sure of; one model serves all
# keep ratios.
pruning = dict(type="UncertaintyPruning", keep_ratio=0.4)
