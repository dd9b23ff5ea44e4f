"""Nested decode heads in configs: in a segmentor that thinks, and in mmseg's own."""

import warnings
from collections.abc import Sequence

from mmengine.registry import MODELS
from mmseg.models import EncoderDecoder
from torch import Tensor, nn

from ...errors import ConfigError
from ...registry import register
from ...thinking import Features, StagedFeatures
from ...utils.checks import check_choice
from .nested import Nested, nest, plain_head
from .two_steps import coarse_logits, upsample


@register("MODELS")
def NestedHead(
    head: dict,
    stage_channels: Sequence[Sequence[int]],
    full_channels: Sequence[int] | None = None,
) -> nn.Module:
    """Build a nested decode head or neck, for mmseg's ``EncoderDecoder``.

    ``ThinkingEncoderDecoder`` has an option for it. Behind a nested neck, which gives narrow maps,
    the channels are those of the neck.

    Args:
        head: Config of mmseg's head or neck.
        stage_channels: For each thinking stage the channels of each map of the backbone, its
            ``stage_channels``.
        full_channels: Of each map, the backbone's ``out_channels``; None for those of the last
            stage.

    Returns:
        The head itself, with the names of its weights.
    """
    return nest(MODELS.build(head), full_channels or stage_channels[-1], stage_channels)


def nest_heads(model: EncoderDecoder, nested: bool | str) -> None:
    """Nest the neck, decode head and auxiliary heads of a segmentor with a thinking backbone.

    Args:
        model: Changed in place.
        nested: True to have all of them nested; ``'auto'`` for those that can be: others are warned
            of, and decode padded maps at full width, as heads behind a neck that stays so do.

    Raises:
        ConfigError: If a head cannot be nested though it has to be; the message names the layer.
    """
    if not check_choice("nested_head", nested, (False, True, "auto")):
        return
    full, stages = model.backbone.out_channels, model.backbone.stage_channels
    if model.with_neck:
        if not _try(model.neck, full, stages, nested):
            return
        full = model.neck.plans[-1].full_out
        stages = [plan.out_widths for plan in model.neck.plans]
    heads = [model.decode_head]
    if model.with_auxiliary_head:
        others = model.auxiliary_head
        heads += others if isinstance(others, nn.ModuleList) else [others]
    for head in heads:
        _try(head, full, stages, nested)


class StageDecoder(nn.Module):
    """Neck and decode head of a segmentor for images of one stage, with the weights it reads.

    Args:
        model: Nested or not.
        stage: Index of the stage, from 0.
    """

    def __init__(self, model: EncoderDecoder, stage: int):
        super().__init__()
        self.stage = stage
        self.neck = model.neck if model.with_neck else None
        self.decode_head = model.decode_head
        self.widths = None
        first = self.neck or self.decode_head
        if isinstance(first, Nested) and isinstance(self.decode_head, Nested):
            self.widths = first.plans[stage].widths
            self.neck = self.neck and plain_head(self.neck, stage)
            self.decode_head = plain_head(self.decode_head, stage)

    def forward(self, features: Features, size: Sequence[int], test_cfg: dict) -> Tensor:
        """Decode zero-padded features, as :func:`coarse_logits` does."""
        features = StagedFeatures(features, self.stage)
        if self.widths:
            features = [x[:, :width] for x, width in zip(features, self.widths, strict=True)]
        maps = self.neck(features) if self.neck else features
        return coarse_logits(self.decode_head, maps, size, test_cfg)

    def upsample(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Upsample coarse logits to the padded input size (H, W)."""
        return upsample(self.decode_head, logits, size)


def _try(head: nn.Module, full: Sequence[int], stages: Sequence, nested: bool | str) -> bool:
    try:
        nest(head, full, stages)
    except ConfigError as error:
        if nested is True:
            raise
        warnings.warn(f"{error}; it decodes padded maps at full width", stacklevel=3)
        return False
    return True
