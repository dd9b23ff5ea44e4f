# CIFAR-10 as an image folder: data/cifar10/{train,test}/<class>/*
_base_ = "./imagenet_224x224.py"
data_root = "data/cifar10"
num_classes = 10
image_size = (32, 32)
gate = dict(type="EntropyGate", threshold=0.5)
data_preprocessor = dict(
    mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255], random_erasing=None
)
train_pipeline = dict(input_size=image_size, scale=(0.6, 1.0), auto_augment="rand-m5-n1-inc1")
test_pipeline = dict(input_size=image_size, crop_pct=1.0)
train_dataloader = dict(
    num_workers=1,
    sampler=dict(_delete_=True, type="DefaultSampler", shuffle=True),
    dataset=dict(data_root=data_root, num_classes=num_classes, transform=train_pipeline),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        data_root=data_root, split="test", num_classes=num_classes, transform=test_pipeline
    ),
)
test_dataloader = val_dataloader
