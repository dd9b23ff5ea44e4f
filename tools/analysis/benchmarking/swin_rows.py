"""Swin: the wide stage alone, and early exits."""

from collections.abc import Iterator
from functools import partial

from tvit_seg.utils.timing import Contestants

from .backbone_rows import early_exit, stage_alone
from .models import Setting
from .rows import Ratio, Row, shape


def swin_rows(setting: Setting) -> Iterator[Row]:
    """Row 9."""
    small, large = (setting.size or size for size in (224, 512))
    name = f"Swin-S stage 1 / timm swin_small, {shape(small, 8)}"
    yield Row(
        9,
        partial(swin_stage, setting, small, 8),
        [Ratio(name, lambda t: t["stage"] / t["timm"], 1.10)],
    )
    name = f"Swin-S all stop / all think, {shape(large, 1)}"
    yield Row(
        9,
        partial(swin_exits, setting, large, 1),
        [Ratio(name, lambda t: t["all stop"] / t["all think"], 0.30)],
    )


def swin_stage(setting: Setting, size: int, batch: int) -> Contestants:
    """The wide stage against timm's Swin of its width."""
    ours, theirs = setting.thinking_swin(1000), setting.timm_swin(size)
    return stage_alone(ours, theirs, setting.images(batch, size), 1)


def swin_exits(setting: Setting, size: int, batch: int) -> Contestants:
    """Exits of our Swin."""
    return early_exit(setting.thinking_swin(1000), setting.images(batch, size))
