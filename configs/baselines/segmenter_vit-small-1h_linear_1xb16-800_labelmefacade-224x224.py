# A fixed network of the width of one stage; see docs/labelmefacade.md for its initial weights.
_base_ = [
    "../_base_/backbones/vit-small_1h.py",
    "../_base_/heads/segmenter_linear.py",
    "../_base_/datasets/labelmefacade_224x224.py",
    "../_base_/schedules/adamw_800.py",
    "../_base_/runtime/default.py",
]
model = dict(
    type="EncoderDecoder",
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(img_size=_base_.crop_size, **_base_.backbone),
    decode_head=dict(
        in_channels=_base_.out_channels,
        channels=_base_.out_channels,
        num_classes=_base_.num_classes,
        **_base_.decode_head,
    ),
    test_cfg=_base_.inference,
)
val_evaluator = [dict(type="ExactIoUMetric", iou_metrics=["mIoU"])]
test_evaluator = val_evaluator
