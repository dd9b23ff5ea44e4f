# Set model.backbone.init_cfg.checkpoint to the result of the Caltech-101 pretraining; see
# docs/labelmefacade.md.
_base_ = [
    "../_base_/backbones/thinkingvit-small_3h-6h.py",
    "../_base_/heads/segmenter_linear.py",
    "../_base_/datasets/labelmefacade_224x224.py",
    "../_base_/schedules/adamw_800.py",
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
