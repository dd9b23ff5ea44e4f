# Caltech-101 as an image folder: data/caltech101/{train,val}/<class>/*, shorter sides 128
_base_ = "./imagenet_224x224.py"
data_root = "data/caltech101"
num_classes = 102
image_size = (112, 112)
gate = dict(type="EntropyGate", threshold=1.0)
data_preprocessor = dict(random_erasing=None, mixup=None)
label_smoothing = 0.0
train_pipeline = dict(
    input_size=image_size, scale=(0.25, 1.0), auto_augment=None, color_jitter=None
)
test_pipeline = dict(input_size=image_size)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(_delete_=True, type="DefaultSampler", shuffle=True),
    dataset=dict(data_root=data_root, num_classes=num_classes, transform=train_pipeline),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, num_classes=num_classes, transform=test_pipeline),
)
test_dataloader = val_dataloader
