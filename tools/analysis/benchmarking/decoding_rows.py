"""Decoding: heads that follow the width of the features, and labels at the size of a photo."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from tvit_seg.deploy.host import ThinkingHost, resize
from tvit_seg.models.gates import FixedGate, PixelEntropyGate
from tvit_seg.models.segmentors import ThinkingEncoderDecoder
from tvit_seg.models.segmentors.class_map import class_map
from tvit_seg.thinking import measure
from tvit_seg.utils.timing import Contestants

from .backbone_rows import exit_gates
from .models import Setting, inference, label_images
from .rows import Ratio, Row, shape

CLASSES = 150


def decoding_rows(setting: Setting) -> Iterator[Row]:
    """Rows 11 to 14."""
    size = setting.size or 512
    targets = {1: {"all stop": 0.30, "all think": 1.10}}
    targets[8] = {"all stop": 0.19, "half stop": 0.45, "all think": 0.72}
    for batch, bounds in targets.items():
        ratios = [
            Ratio(
                f"nested head, {share} / mmseg Segmenter, {shape(size, batch)}",
                lambda t, share=share: t[share] / t["mmseg Segmenter"],
                bound,
            )
            for share, bound in bounds.items()
        ]
        name = f"nested head, all stop / all think, {shape(size, batch)}"
        ratios.append(Ratio(name, lambda t: t["all stop"] / t["all think"], 0.28))
        yield Row(11, partial(nested_head, setting, size, batch), ratios)
    photo = (3 * size, 4 * size)
    title = f"of a {photo[0]} x {photo[1]} photo, {CLASSES} classes: class by class / all at once"
    for kind, contestants, bound in (
        ("labels", torch_labels, 0.40),
        ("host labels", host_labels, 0.20),
    ):
        ratio = Ratio(f"{kind} {title}", lambda t: t["class by class"] / t["all at once"], bound)
        yield Row(12, partial(contestants, setting, size, photo), [ratio])
    name = f"UPerNet with Swin-S, nested, all stop / all think, {shape(size, 1)}"
    ratio = Ratio(name, lambda t: t["all stop"] / t["all think"], 0.30)
    yield Row(13, partial(upernet, setting, size), [ratio])
    ratios = [
        Ratio(
            f"pixel gate at {name} resolution / narrow backbone, {shape(size, 1)}",
            lambda t, name=name: t[name] / t["narrow backbone"],
            bound,
        )
        for name, bound in {"token": 0.01, "input": None}.items()
    ]
    yield Row(14, partial(pixel_gates, setting, size), ratios)


def nested_head(setting: Setting, size: int, batch: int) -> Contestants:
    """Whole segmentors with a mask head, to labels; ours decodes each image at its width."""
    ours = setting.segmenter(size, CLASSES, nested_head=True)
    theirs = setting.mmseg_segmenter(size, CLASSES)
    images = setting.images(batch, size)
    run = labels_by_share(ours, images)
    run["mmseg Segmenter"] = partial(label_images, theirs, images)
    return {name: inference(call) for name, call in run.items()}


def labels_by_share(model: ThinkingEncoderDecoder, images: torch.Tensor) -> Contestants:
    """Label maps where all images stop, half of several do, or none."""
    model.test_cfg["seg_logits"] = False
    gates = exit_gates(model.think, images, half=len(images) > 1)
    return {name: partial(label_images, model, images, gate) for name, gate in gates.items()}


def upernet(setting: Setting, size: int) -> Contestants:
    """UPerNet at the width of each stage of Swin-S, to labels."""
    run = labels_by_share(setting.upernet(CLASSES), setting.images(1, size))
    return {name: inference(call) for name, call in run.items()}


def pixel_gates(setting: Setting, size: int) -> Contestants:
    """Gates' measures of decoded logits, upsampling included where they need it."""
    model = setting.segmenter(size, CLASSES)
    images = setting.images(1, size)
    decode = model.decoder(images)
    with torch.inference_mode():
        output = next(iter(model.backbone.iter_stages(images)))
        logits = decode.coarse(output.features)
    known = replace(decode, coarse=lambda _: logits)
    run = {
        name: partial(measure, PixelEntropyGate(0.0, name), output, images, known)
        for name in ("token", "input")
    }
    run["narrow backbone"] = partial(model.backbone.think, images, FixedGate(0))
    return {name: inference(call) for name, call in run.items()}


def torch_labels(setting: Setting, size: int, photo: tuple[int, int]) -> Contestants:
    """Labels from logits at the network's size; random logits leave every class a candidate.

    Raises:
        RuntimeError: If a label differs, in fp32.
    """
    logits = setting.images(1, size, size * 4 // 3, channels=CLASSES)[0]

    def all_at_once() -> torch.Tensor:
        resized = F.interpolate(logits[None], photo, mode="bilinear")[0]
        return resized.max(dim=0, keepdim=True).indices

    run = {"class by class": partial(class_map, logits, photo), "all at once": all_at_once}
    if setting.dtype == torch.float32 and not torch.equal(*(find() for find in run.values())):
        raise RuntimeError("labels found class by class differ from those of all logits at once")
    return {name: inference(find) for name, find in run.items()}


def host_labels(setting: Setting, size: int, photo: tuple[int, int]) -> Contestants:
    """The same in NumPy, as the host of exported graphs does it."""
    shape = (CLASSES, size, size * 4 // 3)
    logits = np.random.default_rng(0).standard_normal(shape, np.float32)
    host = SimpleNamespace(manifest=dict(align_corners=False))  # labels need no graphs
    area = (..., slice(0, shape[1]), slice(0, shape[2]))
    return {
        "class by class": partial(ThinkingHost.label, host, logits, [area], photo),
        "all at once": lambda: resize(logits, photo).argmax(0),
    }
