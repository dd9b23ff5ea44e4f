"""A whole test on photos: reading, network, labels at the photo's size and metric."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner

from tvit_seg.engine.runner import ThinkingRunner
from tvit_seg.utils.timing import Contestants

from .models import HEADS, Setting, segmentor_config
from .rows import Ratio, Row

CLASSES = 150
PHOTOS = 20


def photo_rows(setting: Setting) -> Iterator[Row]:
    """Row 15."""
    size = setting.size or 512
    title = f"test on {PHOTOS} photos of {3 * size} x {4 * size}"
    ratios = [
        Ratio(
            f"{title}, {share} / mmseg Segmenter",
            lambda t, share=share: t[share] / t["mmseg Segmenter"],
            bound,
        )
        for share, bound in {"all stop": 0.22, "half stop": 0.27, "all think": 0.32}.items()
    ]
    name = f"{title}, all think / mmseg Segmenter, peak memory"
    compute = lambda m: m["all think"] / m["mmseg Segmenter"]  # noqa: E731
    ratios.append(Ratio(name, compute, 0.50, memory=True))
    yield Row(15, partial(tests_on_photos, setting, size), ratios)


def tests_on_photos(setting: Setting, size: int) -> Contestants:
    """Tests by our runner, as in tools/test.py, at exit shares, and by mmengine's with mmseg."""
    folder = TemporaryDirectory()
    make_photos(Path(folder.name), size)
    ours = dict(setting.segmenter_options(size, CLASSES), nested_head=True)
    configs = {}
    for name, share in {"all stop": 0.0, "half stop": 0.5, "all think": 1.0}.items():
        gate = dict(type="BudgetGate", gate=dict(type="EntropyGate", threshold=0.0))
        backbone = dict(ours["backbone"], gate=dict(gate, think_shares=share))
        configs[name] = ("ThinkingEncoderDecoder", dict(ours, backbone=backbone))
    configs["mmseg Segmenter"] = ("EncoderDecoder", setting.mmseg_options(size))
    runners = {
        name: build_runner(setting, folder.name, size, name, *config)
        for name, config in configs.items()
    }
    run = {name: runner.test for name, runner in runners.items()}
    run["all stop"].__self__.photos = folder  # removed with the runners
    return run


def make_photos(folder: Path, size: int) -> None:
    """Write smooth random photos and label maps."""
    rng = np.random.default_rng(0)
    for i in range(PHOTOS):
        noise = rng.integers(0, 256, (24, 32, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i}.jpg"), cv2.resize(noise, (4 * size, 3 * size)))
        labels = rng.integers(0, CLASSES, (24, 32), np.uint8)
        enlarged = cv2.resize(labels, (4 * size, 3 * size), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / f"{i}.png"), enlarged)


def build_runner(
    setting: Setting, folder: str, size: int, name: str, kind: str, options: dict
) -> Runner:
    """Runner of a test on the photos of a folder, on images ``size`` pixels high."""
    model = segmentor_config(kind, options, HEADS, CLASSES, {})
    model["data_preprocessor"] = dict(
        type="SegDataPreProcessor", mean=[128.0] * 3, std=[64.0] * 3, bgr_to_rgb=True
    )
    dataset = dict(
        type="BaseSegDataset",
        data_root=folder,
        data_prefix=dict(img_path="", seg_map_path=""),
        metainfo=dict(classes=[str(i) for i in range(CLASSES)]),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(4 * size, size), keep_ratio=True),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    )
    loader = dict(batch_size=1, dataset=dataset, sampler=dict(type="DefaultSampler", shuffle=False))
    config = dict(
        model=model,
        work_dir=f"{folder}/{name.replace(' ', '_')}",
        test_dataloader=loader,
        test_cfg=dict(type="TestLoop"),
        test_evaluator=dict(type="IoUMetric"),
        default_scope="mmseg",
        log_level="ERROR",
        experiment_name=name,
    )
    build = ThinkingRunner if kind == "ThinkingEncoderDecoder" else Runner
    runner = build.from_cfg(Config(config))
    setting.prepare(runner.model)
    return runner
