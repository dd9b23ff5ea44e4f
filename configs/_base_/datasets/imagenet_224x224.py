# ImageNet-1K with DeiT's augmentation; folders data/imagenet/{train,val}/<class>/*.JPEG
dataset_type = "TimmDataset"
data_root = "data/imagenet"
num_classes = 1000
image_size = (224, 224)
# the published thresholds count the ten most probable classes
gate = dict(type="EntropyGate", threshold=1.0, topk=10)
data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    random_erasing=dict(probability=0.25, mode="pixel"),
    mixup=dict(mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, mode="batch"),
)
label_smoothing = 0.1

train_pipeline = dict(
    input_size=image_size,
    is_training=True,
    auto_augment="rand-m9-mstd0.5-inc1",
    interpolation="bicubic",
)
test_pipeline = dict(input_size=image_size, crop_pct=0.875, interpolation="bicubic")

train_dataloader = dict(
    batch_size=128,
    num_workers=10,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="RepeatedAugSampler", num_repeats=3),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split="train",
        num_classes=num_classes,
        transform=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=10,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split="val",
        num_classes=num_classes,
        transform=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="ThinkingAccuracy", topk=(1, 5))
test_evaluator = val_evaluator
