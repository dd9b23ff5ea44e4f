_base_ = [
    "../_base_/backbones/thinkingvit_3h-6h.py",
    "../_base_/heads/segmenter_linear.py",
    "../_base_/datasets/cityscapes_768x768.py",
    "../_base_/schedules/sgd_80k.py",
    "../_base_/runtime/default.py",
]
model = dict(
    type="ThinkingEncoderDecoder",
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(img_size=_base_.crop_size, num_classes=_base_.num_classes, **_base_.backbone),
    decode_head=dict(
        in_channels=_base_.out_channels,
        channels=_base_.out_channels,
        num_classes=_base_.num_classes,
        **_base_.decode_head,
    ),
    image_loss=dict(target="presence", loss_weight=0.5),
    test_cfg=_base_.inference,
)
# Ten times ADE20K's learning rate.
optim_wrapper = dict(optimizer=dict(lr=0.01))
