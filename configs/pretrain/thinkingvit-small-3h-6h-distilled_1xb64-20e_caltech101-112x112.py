# Distilled from an ImageNet classifier on unlabelled photos; see requirements/pretrain.txt.
_base_ = [
    "../_base_/backbones/thinkingvit-small_3h-6h.py",
    "../_base_/datasets/caltech101_112x112.py",
    "../_base_/schedules/adamw_20e.py",
    "../_base_/runtime/classification.py",
]
model = dict(
    type="ThinkingClassifier",
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        img_size=_base_.image_size,
        num_classes=1000,  # the teacher's
        **{**_base_.backbone, "gate": _base_.gate},
    ),
    distill=dict(
        teacher=dict(type="efficientnet_lite0"),
        label_weight=0.0,
        size=(128, 128),
        mean=[127.0] * 3,
        std=[128.0] * 3,
        tokens=dict(pool="_avg_pooling", classifier="_fc"),
    ),
)
# no labels of the teacher's classes to validate with
val_cfg = None
val_dataloader = None
val_evaluator = None
test_cfg = None
test_dataloader = None
test_evaluator = None
