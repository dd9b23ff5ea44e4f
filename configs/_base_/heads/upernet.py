# UPerNet with an auxiliary FCN head; the top-level config sets in_channels and classes. GN instead
# of mmseg's SyncBN, whose running statistics would mix features of different stages.
norm_cfg = dict(type="GN", num_groups=32)
decode_head = dict(
    type="UPerHead",
    in_index=[0, 1, 2, 3],
    pool_scales=(1, 2, 3, 6),
    channels=512,
    dropout_ratio=0.1,
    norm_cfg=norm_cfg,
    loss_decode=dict(
        type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0, avg_non_ignore=True
    ),
)
auxiliary_head = dict(
    type="FCNHead",
    in_index=2,
    channels=256,
    num_convs=1,
    concat_input=False,
    dropout_ratio=0.1,
    norm_cfg=norm_cfg,
    loss_decode=dict(
        type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4, avg_non_ignore=True
    ),
)
