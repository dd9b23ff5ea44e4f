"""Segmentors: a sweep, sliding windows, and exit shares against mmseg's Segmenter."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample

from tvit_seg.evaluation.stages import SegmentationEvaluator
from tvit_seg.evaluation.sweep import ImageSweep, Sweep
from tvit_seg.utils.timing import Contestants
from tvit_seg.weights.convert import convert_state_dict

from .backbone_rows import exit_gates
from .models import TIMM_MODELS, Setting, inference, label_images
from .rows import Ratio, Row, shape

CLASSES = 19


def segmentor_rows(setting: Setting) -> Iterator[Row]:
    """Rows 6 to 8."""
    size = setting.size or 512
    name = f"sweep over 13 thresholds / one evaluation, {shape(size, 1)}"
    yield Row(
        6,
        partial(sweep_pass, setting, size),
        [Ratio(name, lambda t: t["sweep"] / t["all think"], 1.25)],
    )
    height, crop, stride = (
        (setting.size * n for n in (4, 3, 2)) if setting.size else (1024, 768, 512)
    )
    name = f"sliding windows, 4 at once / mmseg Segmenter, {height} x {2 * height}, 192 channels"
    yield Row(
        7,
        partial(sliding_windows, setting, height, crop, stride),
        [
            Ratio(f"{name}, labels", lambda t: t["ours"] / t["mmseg"], 0.38),
            Ratio(f"{name}, peak memory", lambda m: m["ours"] / m["mmseg"], 0.60, memory=True),
        ],
    )
    for batch in (1, 8):
        shares = ("all stop", "half stop", "all think") if batch > 1 else ("all stop", "all think")
        others = ("mmseg Segmenter", *map(_short, TIMM_MODELS))
        yield Row(
            8,
            partial(exit_shares, setting, size, batch),
            [
                Ratio(f"{share} / {other}, {shape(size, batch)}", _ratio(share, other))
                for other in others
                for share in shares
            ],
        )


def sweep_pass(setting: Setting, size: int) -> Contestants:
    """One image: all stages and 13 thresholds, against thinking to the end and measuring mIoU."""
    model = setting.segmenter(size, CLASSES)
    metric = IoUMetric(prefix="")
    metric.dataset_meta = dict(classes=tuple(map(str, range(CLASSES))))
    evaluator = SegmentationEvaluator(model, CLASSES)
    images = setting.images(1, size)
    labels = torch.randint(0, CLASSES, (1, size, size))
    meta = dict.fromkeys(("ori_shape", "img_shape", "pad_shape"), (size, size))

    def sample() -> SegDataSample:
        return SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=meta)

    def evaluate() -> None:
        metric.process({}, [x.to_dict() for x in model.predict(images, [sample()])])

    def sweep() -> list[dict]:
        predictions = evaluator.predict_stages(images, [sample()])
        swept = [ImageSweep.from_predictions(*image) for image in predictions]
        found = Sweep(swept, type(evaluator))
        return [found.row(threshold) for threshold in np.linspace(0, 3, 13)]

    return {"sweep": inference(sweep), "all think": inference(evaluate)}


def sliding_windows(setting: Setting, height: int, crop: int, stride: int) -> Contestants:
    """Equal weights, a mask head, every window in one stage of 192 channels.

    Raises:
        RuntimeError: If the label maps differ, in fp32, by more than ties that rounding breaks.
    """
    slide = dict(mode="slide", crop_size=(crop, crop), stride=(stride, stride))
    ours, theirs = (
        build(crop, CLASSES, (3,), **slide)
        for build in (setting.segmenter, setting.mmseg_segmenter)
    )
    ours.test_cfg.update(seg_logits=False, window_batch_size=4)
    ours.load_state_dict(convert_state_dict(theirs.state_dict(), ours), strict=False)
    images = setting.images(1, height, 2 * height)
    models = {"ours": ours, "mmseg": theirs}
    run = {name: inference(partial(label_images, x, images)) for name, x in models.items()}
    if setting.dtype == torch.float32:
        one, other = (label()[0].pred_sem_seg.data for label in run.values())
        if (share := (one != other).float().mean().item()) > 1e-4:
            raise RuntimeError(f"{share:.2%} of the pixels differ between {' and '.join(run)}")
    return run


def exit_shares(setting: Setting, size: int, batch: int) -> Contestants:
    """Whole segmentors with a mask head; timm's are backbones with a classification head."""
    ours = setting.segmenter(size, CLASSES)
    theirs = setting.mmseg_segmenter(size, CLASSES)
    images = setting.images(batch, size)
    meta = [dict(ori_shape=(size, size), img_shape=(size, size))] * batch
    gates = exit_gates(ours.think, images, half=batch > 1)
    run = {name: partial(ours.think, images, gate) for name, gate in gates.items()}
    run["mmseg Segmenter"] = partial(theirs.inference, images, meta)
    for stage, name in enumerate(TIMM_MODELS):
        run[_short(name)] = partial(setting.timm_vit(stage, size), images)
    return {name: inference(call) for name, call in run.items()}


def _short(name: str) -> str:
    return name.removesuffix("_patch16_224")


def _ratio(one: str, other: str):
    return lambda times: times[one] / times[other]
