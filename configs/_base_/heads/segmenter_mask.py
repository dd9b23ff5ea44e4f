# Segmenter's mask transformer; in_channels, channels and classes are set by the top-level config.
decode_head = dict(
    type="SegmenterMaskTransformerHead",
    drop_path_rate=0.1,
    dropout_ratio=0.0,
    loss_decode=dict(
        type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0, avg_non_ignore=True
    ),
)
