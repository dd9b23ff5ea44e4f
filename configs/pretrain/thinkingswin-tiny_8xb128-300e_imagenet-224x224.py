_base_ = [
    "../_base_/backbones/thinkingswin_tiny.py",
    "../_base_/datasets/imagenet_224x224.py",
    "../_base_/schedules/adamw_300e_warmup20.py",
    "../_base_/runtime/classification.py",
]
model = dict(
    type="ThinkingClassifier",
    # a Swin trained on ImageNet-1K; None starts from random weights
    pretrained="checkpoints/swin_tiny_patch4_window7_224.pth",
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        # the norms of the lower levels' maps are for segmentation only
        out_indices=-1,
        num_classes=_base_.num_classes,
        **{**_base_.backbone, "gate": _base_.gate},
    ),
    label_smoothing=_base_.label_smoothing,
    test_cfg=dict(per_stage=True),
)
