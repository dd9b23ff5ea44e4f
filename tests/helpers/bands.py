"""Images of six bands in ``.npy`` files, which OpenCV and PIL do not know."""

import cv2
import numpy as np
import torch
from helpers.builders import LINEAR, VIT
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmseg.registry import MODELS, TRANSFORMS

SIZE = (40, 33)


@TRANSFORMS.register_module(force=True)
class LoadSixBands(BaseTransform):
    """Bands from ``.npy`` files."""

    def transform(self, results):
        image = np.load(results["img_path"])
        shape = image.shape[:2]
        return {**results, "img": image, "img_shape": shape, "ori_shape": shape}


def write(root, count=3, bands=6, dtype=np.float32):
    """Images, labels, and a config of a segmentor for them; ``model.pth`` has random weights."""
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        image = rng.uniform(0, 200, (*SIZE, bands)).astype(dtype)
        np.save(root / f"images/{i}.npy", image)
        cv2.imwrite(str(root / f"labels/{i}.png"), rng.integers(0, 5, SIZE, np.uint8))
    steps = ["LoadSixBands", "LoadAnnotations", "PackSegInputs"]
    data = dict(
        type="BaseSegDataset",
        data_root=str(root),
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        metainfo=dict(classes=tuple("abcde"), palette=[[i, i, i] for i in range(5)]),
        img_suffix=".npy",
        pipeline=[dict(type=name) for name in steps],
    )
    sampler = dict(type="DefaultSampler", shuffle=False)
    loader = dict(dataset=data, batch_size=1, num_workers=0, sampler=sampler)
    model = dict(
        type="ThinkingEncoderDecoder",
        data_preprocessor=dict(type="SegDataPreProcessor", mean=[100.0], std=[50.0]),
        backbone=dict(VIT, in_channels=bands, gate=dict(type="EntropyGate", threshold=1.6)),
        decode_head=LINEAR,
        test_cfg=dict(mode="whole"),
    )
    cfg = Config(
        dict(
            default_scope="mmseg",
            model=model,
            visualizer=dict(type="ThinkingVisualizer"),
            **{f"{split}_dataloader": loader for split in ("val", "test")},
            **{f"{split}_evaluator": dict(type="ExactIoUMetric") for split in ("val", "test")},
            **{f"{split}_cfg": {} for split in ("val", "test")},
        )
    )
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), root / "model.pth")
    return cfg
