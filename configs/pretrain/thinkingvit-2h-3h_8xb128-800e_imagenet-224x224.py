_base_ = [
    "../_base_/backbones/thinkingvit_2h-3h.py",
    "../_base_/datasets/imagenet_224x224.py",
    "../_base_/schedules/adamw_800e.py",
    "../_base_/runtime/classification.py",
]
model = dict(
    type="ThinkingClassifier",
    # fills the leading heads; None starts from random weights
    pretrained="checkpoints/deit_tiny_patch16_224.pth",
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        img_size=_base_.image_size,
        num_classes=_base_.num_classes,
        **{**_base_.backbone, "gate": _base_.gate},
    ),
    label_smoothing=_base_.label_smoothing,
    test_cfg=dict(per_stage=True),
)
