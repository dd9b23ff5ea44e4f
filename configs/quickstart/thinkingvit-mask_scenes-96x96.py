# The quickstart with a mask transformer, which needs more training than the linear decoder.
_base_ = "./thinkingvit_scenes-96x96.py"
model = dict(
    decode_head=dict(
        _delete_=True,
        type="SegmenterMaskTransformerHead",
        in_channels=_base_.out_channels,
        channels=_base_.out_channels,
        embed_dims=_base_.out_channels,
        num_layers=2,
        num_heads=4,
        num_classes=_base_.num_classes,
        drop_path_rate=0.1,
        dropout_ratio=0.0,
        loss_decode=_base_.decode_head.loss_decode,
    ),
)
