"""Token pruning: stage 1 with and without."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import torch

from tvit_seg.utils.timing import Contestants

from .models import Setting, inference
from .rows import Ratio, Row, shape

TARGETS = {0.9: 1.0, 0.7: 0.8}
"""Keep ratios, with bounds on pruned / unpruned time at 512 pixels."""

CLASSES = 150

UNCERTAIN = {0.6: 0.65, 0.4: 0.45}
"""The same for tokens that the stage before is unsure of, with lent keys and values."""


def pruning_rows(setting: Setting) -> Iterator[Row]:
    """Row 10, for both prunings."""
    for size in dict.fromkeys((setting.size or 512, setting.size or 224)):
        for batch in (1, 8):
            for name, build, targets in (
                ("keep ratio", learned, TARGETS),
                ("uncertain tokens", uncertain, UNCERTAIN),
            ):
                ratios = [
                    Ratio(
                        f"stage 1, {name} {keep_ratio} / unpruned, {shape(size, batch)}",
                        lambda t, r=keep_ratio: t[f"{r}"] / t["unpruned"],
                        target if size >= 512 else 1.0,  # elsewhere: no slower
                    )
                    for keep_ratio, target in targets.items()
                ]
                yield Row(10, partial(wide_stage, setting, size, batch, build, targets), ratios)


def learned(setting: Setting, keep_ratio: float) -> dict:
    """Config of a pruning by learned scores."""
    locations = sorted({setting.layers * i // 4 for i in (1, 2, 3)})
    return dict(type="DynamicPruning", locations=locations, keep_ratio=keep_ratio)


def uncertain(setting: Setting, keep_ratio: float) -> dict:
    """Config of a pruning by the uncertainty of decoded logits."""
    return dict(type="UncertaintyPruning", keep_ratio=keep_ratio)


def wide_stage(
    setting: Setting,
    size: int,
    batch: int,
    pruning: Callable[[Setting, float], dict],
    keep_ratios: Iterable[float],
) -> Contestants:
    """Our stage 1 given stage 0 and its decoded logits, from images to logits."""
    images = setting.images(batch, size)
    models = {"unpruned": setting.thinking_vit(size, 1000)}
    for keep_ratio in keep_ratios:
        model = setting.trainable_vit(size, 1000)
        model.set_pruning(pruning(setting, keep_ratio), has_decode_head=True)
        models[f"{keep_ratio}"] = setting.prepare(model)
    with torch.inference_mode():
        embedding = model.embed(images, 0, None)
        previous = model.run_stage(0, embedding, None, images.shape[-2:])
        coarse = setting.images(batch, *model.grid((size, size)), channels=CLASSES)
        previous = replace(previous, coarse_logits=coarse)

    def run(model: torch.nn.Module) -> object:
        return model.run_stage(1, model.embed(images, 1, embedding), previous, images.shape[-2:])

    return {name: inference(partial(run, model)) for name, model in models.items()}
