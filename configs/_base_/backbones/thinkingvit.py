# Common to all published ThinkingViT configs; the other files here set widths and stages.
backbone = dict(
    type="ThinkingViT",
    num_layers=12,
    drop_path_rate=0.1,
    gate=dict(type="EntropyGate", threshold=0.1, use_sigmoid=True),
)
