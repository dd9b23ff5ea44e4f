"""A small classification training for tests: an image folder and the config to train on it."""

import numpy as np
from helpers.builders import VIT
from mmengine.config import Config
from PIL import Image

CLASSES = ("ant", "bee", "cow")


def image_folder(root, count=4, size=(12, 10)):
    """Writes splits train and val, three classes, ``count`` images (width, height) for each."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def config(root, work_dir, **changes):
    """Two epochs of three steps, without any randomness but the weights'."""
    size = dict(input_size=32, no_aug=True)

    def loader(split, shuffle):
        return dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type="DefaultSampler", shuffle=shuffle),
            dataset=dict(
                type="TimmDataset",
                data_root=str(root),
                split=split,
                transform=dict(size, is_training=split == "train"),
            ),
        )

    cfg = Config(
        dict(
            default_scope="mmseg",
            work_dir=str(work_dir),
            log_level="WARNING",
            model=dict(
                type="ThinkingClassifier",
                backbone=dict(VIT, num_classes=3, gate=dict(type="EntropyGate", threshold=1.0)),
                data_preprocessor=dict(),
                test_cfg=dict(per_stage=True),
            ),
            train_dataloader=loader("train", True),
            val_dataloader=loader("val", False),
            test_dataloader=loader("val", False),
            val_evaluator=dict(type="ThinkingAccuracy", topk=(1, 2)),
            test_evaluator=dict(type="ThinkingAccuracy", topk=(1, 2)),
            train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=2, val_interval=1),
            val_cfg=dict(type="AveragedValLoop"),
            test_cfg=dict(),
            optim_wrapper=dict(
                type="OptimWrapper",
                constructor="LayerDecayOptimWrapperConstructor",
                optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
            ),
            default_hooks=dict(
                checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=5)
            ),
            randomness=dict(seed=0),
        )
    )
    cfg.train_cfg = changes.pop("train_cfg", cfg.train_cfg)
    cfg.merge_from_dict(changes)
    cfg.experiment_name = f"{work_dir.parent.name}-{work_dir.name}-{len(list(work_dir.glob('*')))}"
    return cfg
