"""The calls that timm's train.py and validate.py make, on a folder of images."""

import argparse

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import Mixup, create_dataset, create_loader, resolve_data_config
from timm.loss import SoftTargetCrossEntropy
from timm.models import load_checkpoint, resume_checkpoint
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, CheckpointSaver, ModelEmaV3, NativeScaler, accuracy

from tvit_seg.models.timm_models import JointLoss

SMALL = {
    "thinkingvit_3h_6h": dict(img_size=16, patch_size=4, embed_dim=24, num_heads=6, depth=2),
    "thinkingswin_tiny": dict(
        img_size=16, embed_dim=24, depths=(1, 1), thinking_stages=((1, 2), (3, 6)), window_size=2
    ),
}
COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])


@pytest.fixture
def folder(tmp_path):
    """Three classes of noisy colours."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 6)):
        for label, colour in enumerate(COLOURS):
            place = tmp_path / "data" / split / f"class{label}"
            place.mkdir(parents=True)
            for i in range(count):
                noise = rng.normal(colour, 40, (16, 16, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(noise).save(place / f"{i}.png")
    return tmp_path / "data"


def create(name, **kwargs):
    return timm.create_model(
        name, pretrained=False, num_classes=3, drop_rate=0.0, drop_path_rate=0.0,
        global_pool=None, **SMALL[name], **kwargs,
    )  # fmt: skip


def loader(folder, split, model, training):
    config = resolve_data_config({"img_size": 16, "crop_pct": 1.0}, model=model)
    return create_loader(
        create_dataset("", root=folder, split=split, is_training=training, batch_size=6),
        input_size=config["input_size"],
        batch_size=6,
        is_training=training,
        no_aug=True,
        num_workers=0,
        mean=config["mean"],
        std=config["std"],
        use_prefetcher=False,
        persistent_workers=False,
    )


@torch.inference_mode()
def validate(model, data):
    model.eval()
    top1 = AverageMeter()
    for images, labels in data:
        top1.update(accuracy(model(images), labels, topk=(1, 3))[0].item(), len(images))
    return top1.avg


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "joint"), [("thinkingvit_3h_6h", True), ("thinkingswin_tiny", False)]
)
def test_training_validation_and_resume(folder, tmp_path, name, joint):
    model = create(name, joint=joint)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=5e-3, weight_decay=0.05, layer_decay=0.9)
    data = loader(folder, "train", model, True)
    scheduler, epochs = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=4, updates_per_epoch=len(data)
    )
    mixup = Mixup(mixup_alpha=0.1, cutmix_alpha=0.0, prob=0.5, num_classes=3)
    criterion = SoftTargetCrossEntropy()
    if joint:
        criterion = JointLoss(criterion)
    ema, scaler = ModelEmaV3(model, decay=0.9), NativeScaler(device="cpu")
    saver = CheckpointSaver(
        model, optimizer, args=argparse.Namespace(model=name), model_ema=ema,
        amp_scaler=scaler, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path),
    )  # fmt: skip
    for epoch in range(epochs):
        model.train()
        for step, (images, labels) in enumerate(data):
            images, targets = mixup(images, labels)
            with torch.autocast("cpu", torch.bfloat16):
                loss = criterion(model(images), targets)
            optimizer.zero_grad()
            scaler(loss, optimizer, clip_grad=1.0, parameters=model.parameters())
            ema.update(model, step=epoch * len(data) + step)
        top1 = validate(model, loader(folder, "validation", model, False))
        scheduler.step(epoch + 1, top1)
        saver.save_checkpoint(epoch, metric=top1)
    assert top1 > 80

    again = create(name)
    best = load_checkpoint(again, str(tmp_path / "model_best.pth.tar"), use_ema=False)
    assert not best.missing_keys
    assert not best.unexpected_keys
    resumed = create(name)
    optimizer = create_optimizer_v2(resumed, opt="adamw", lr=1e-3, layer_decay=0.9)
    last = str(tmp_path / "last.pth.tar")
    assert resume_checkpoint(resumed, last, optimizer, NativeScaler(device="cpu")) == epochs
    assert validate(resumed, loader(folder, "validation", model, False)) == top1
    for stage in range(2):
        resumed.set_gate(dict(type="FixedGate", stage=stage))
        assert validate(resumed, loader(folder, "validation", model, False)) > 60


def test_tasks_of_newer_scripts():
    task = pytest.importorskip("timm.task").ClassificationTask
    model = create("thinkingvit_3h_6h")
    training = task(model, torch.nn.CrossEntropyLoss(), device=torch.device("cpu"), verbose=False)
    training.train()
    training(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]))["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())
