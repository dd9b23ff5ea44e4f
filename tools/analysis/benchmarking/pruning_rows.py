"""Token pruning: stage 1 with and without."""

from collections.abc import Iterator
from functools import partial

import torch

from tvit_seg.utils.timing import Contestants

from .models import Setting, inference
from .rows import Ratio, Row, shape

TARGETS = {0.9: 1.0, 0.7: 0.8}
"""Keep ratios, with bounds on pruned / unpruned time at 512 pixels."""


def pruning_rows(setting: Setting) -> Iterator[Row]:
    """Row 10."""
    for size in dict.fromkeys((setting.size or 512, setting.size or 224)):
        for batch in (1, 8):
            yield Row(
                10,
                partial(wide_stage, setting, size, batch),
                [
                    Ratio(
                        f"stage 1, keep ratio {keep_ratio} / unpruned, {shape(size, batch)}",
                        lambda t, r=keep_ratio: t[f"{r}"] / t["unpruned"],
                        target if size >= 512 else 1.0,  # elsewhere: no slower
                    )
                    for keep_ratio, target in TARGETS.items()
                ],
            )


def wide_stage(setting: Setting, size: int, batch: int) -> Contestants:
    """Our stage 1 given the tokens of stage 0, from images to logits."""
    locations = sorted({setting.layers * i // 4 for i in (1, 2, 3)})
    images = setting.images(batch, size)
    unpruned = setting.thinking_vit(size, 1000)
    models = {"unpruned": unpruned}
    for keep_ratio in TARGETS:
        pruning = dict(type="DynamicPruning", locations=locations, keep_ratio=keep_ratio)
        models[f"{keep_ratio}"] = setting.thinking_vit(size, 1000, pruning=pruning)
    with torch.inference_mode():
        embedding = unpruned.embed(images, 0, None)
        tokens = unpruned.run_stage(0, embedding, None, images.shape[-2:]).tokens

    def run(model: torch.nn.Module) -> object:
        return model.run_stage(1, model.embed(images, 1, embedding), tokens, images.shape[-2:])

    return {name: inference(partial(run, model)) for name, model in models.items()}
