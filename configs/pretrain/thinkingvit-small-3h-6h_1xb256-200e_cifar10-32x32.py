# For one GPU: from random weights, with DeiT's augmentation.
_base_ = [
    "../_base_/backbones/thinkingvit-small_3h-6h.py",
    "../_base_/datasets/cifar10_32x32.py",
    "../_base_/schedules/adamw_200e.py",
    "../_base_/runtime/classification.py",
]
model = dict(
    type="ThinkingClassifier",
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        img_size=_base_.image_size,
        patch_size=4,
        num_classes=_base_.num_classes,
        **{**_base_.backbone, "gate": _base_.gate},
    ),
    label_smoothing=_base_.label_smoothing,
    test_cfg=dict(per_stage=True),
)
train_dataloader = dict(batch_size=256, num_workers=8)
