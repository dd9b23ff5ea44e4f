_base_ = [
    "../_base_/backbones/thinkingswin_mini.py",
    "../_base_/heads/upernet-mini.py",
    "../_base_/datasets/camvid_240x320.py",
    "../_base_/schedules/adamw_1000.py",
    "../_base_/runtime/default.py",
]
model = dict(
    type="ThinkingEncoderDecoder",
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(num_classes=_base_.num_classes, **_base_.backbone),
    decode_head=dict(
        in_channels=_base_.out_channels, num_classes=_base_.num_classes, **_base_.decode_head
    ),
    auxiliary_head=dict(
        in_channels=_base_.out_channels[_base_.auxiliary_head.in_index],
        num_classes=_base_.num_classes,
        **_base_.auxiliary_head,
    ),
    image_loss=dict(target="presence", loss_weight=0.5),
    test_cfg=_base_.inference,
)
train_dataloader = dict(batch_size=8)
