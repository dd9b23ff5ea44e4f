# About 45 minutes on one CPU core, see docs/cifar10.md. Random weights, little augmentation.
_base_ = [
    "../_base_/backbones/thinkingvit-mini_1h-3h.py",
    "../_base_/datasets/cifar10_32x32.py",
    "../_base_/schedules/adamw_10e.py",
    "../_base_/runtime/classification.py",
]
model = dict(
    type="ThinkingClassifier",
    data_preprocessor={**_base_.data_preprocessor, "mixup": None},
    backbone=dict(
        img_size=_base_.image_size,
        patch_size=4,
        num_classes=_base_.num_classes,
        # the median entropy after the recorded run: half of the images continue
        **{**_base_.backbone, "gate": {**_base_.gate, "threshold": 1.26}},
    ),
    test_cfg=dict(per_stage=True),
)
train_pipeline = dict(auto_augment=None, color_jitter=None)
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    dataset=dict(transform=dict(auto_augment=None, color_jitter=None)),
)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
