# Segmenter's linear decoder; in_channels, channels and classes are set by the top-level config.
decode_head = dict(
    type="FCNHead",
    num_convs=0,
    concat_input=False,
    dropout_ratio=0.0,
    loss_decode=dict(
        type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0, avg_non_ignore=True
    ),
)
