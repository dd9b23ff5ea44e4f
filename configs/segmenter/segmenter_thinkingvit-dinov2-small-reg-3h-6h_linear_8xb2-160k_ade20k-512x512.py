# Not trained here. model.pretrained names the weights, see docs/todays-backbones.md.
_base_ = [
    "../_base_/backbones/thinkingvit-dinov2-small-reg_3h-6h.py",
    "../_base_/heads/segmenter_linear.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/adamw_160k.py",
    "../_base_/runtime/default.py",
]
model = dict(
    type="ThinkingEncoderDecoder",
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(num_classes=_base_.num_classes, **_base_.backbone),
    decode_head=dict(
        in_channels=_base_.out_channels,
        channels=_base_.out_channels,
        num_classes=_base_.num_classes,
        **_base_.decode_head,
    ),
    image_loss=dict(target="presence", loss_weight=0.5),
    test_cfg=_base_.inference,
)
train_dataloader = dict(batch_size=2)
