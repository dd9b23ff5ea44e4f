"""The published models under timm's registry, one function each, as timm has them."""

from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    resolve_pretrained_cfg,
)

from .interface import TimmInterface
from .swin import TimmThinkingSwin
from .vit import TimmThinkingViT


def _cfg(pool_size: tuple[int, int] | None = None) -> dict[str, Any]:
    return dict(
        num_classes=1000,
        input_size=(3, 224, 224),
        pool_size=pool_size,
        crop_pct=0.875,
        interpolation="bicubic",
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        first_conv="patch_embed.proj",
        classifier="head",
        paper_ids="arXiv:2507.10800",
        paper_name="ThinkingViT",
    )


_VITS = ("2h_3h", "2h_3h_6h", "2h_6h", "3h_6h", "3h_6h_12h", "3h_9h", "3h_12h")
_SWINS = ("tiny", "small", "base")

default_cfgs = generate_default_cfgs(
    {
        **{f"thinkingvit_{heads}": _cfg() for heads in _VITS},
        **{f"thinkingswin_{size}": _cfg(pool_size=(7, 7)) for size in _SWINS},
    }
)


def _build(
    cls: type[TimmInterface],
    variant: str,
    pretrained: bool,
    features: int,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict | None = None,
    **kwargs,
):
    """Builds a model as timm does; weights come from local files, through our own loader.

    Args:
        cls: Class of the model.
        variant: Its name.
        pretrained: Whether to load weights.
        features: How many of the last features ``features_only`` gives by default.
        pretrained_cfg: As in timm.
        pretrained_cfg_overlay: As in timm.
        **kwargs: Arguments of the class, and of ``timm.models.build_model_with_cfg``.

    Raises:
        ValueError: If pretrained weights are asked for, but no file of them is named, or features
            other than by timm's ``getter``.
    """
    if kwargs.get("feature_cls", "getter") != "getter":
        raise ValueError(
            f"{variant}: feature_cls={kwargs['feature_cls']!r} must be 'getter': features come "
            "from the stage where an image stops"
        )
    overlay = dict(pretrained_cfg_overlay or {})
    known = resolve_pretrained_cfg(variant, pretrained_cfg, overlay)
    if known.file:
        overlay.setdefault("custom_load", True)  # TimmInterface.load_pretrained
    if pretrained and not (known.has_weights or known.state_dict):
        raise ValueError(
            f"{variant}: pretrained=True, but no weights are downloaded. Give pretrained=False, or "
            "pretrained_cfg_overlay=dict(file=PATH) with a local file; checkpoints/README.md says "
            "where which weights are published"
        )

    def construct(device: Any = None, dtype: torch.dtype | None = None, **arguments):
        if device is None:
            return cls(**arguments).to(dtype)
        with torch.device(device):
            return cls(**arguments).to(dtype)

    return build_model_with_cfg(
        construct,
        variant,
        pretrained,
        pretrained_cfg=pretrained_cfg,
        pretrained_cfg_overlay=overlay,
        feature_cfg=dict(out_indices=features, feature_cls="getter"),
        **kwargs,
    )


def _vit(variant: str, pretrained: bool, options: dict) -> TimmThinkingViT:
    return _build(TimmThinkingViT, variant, pretrained, features=3, **options)  # as timm's ViTs


def _swin(variant: str, pretrained: bool, options: dict) -> TimmThinkingSwin:
    levels = len(options["depths"])
    return _build(TimmThinkingSwin, variant, pretrained, features=levels, **options)


@register_model
def thinkingvit_2h_3h(pretrained: bool = False, **kwargs) -> TimmThinkingViT:
    """ThinkingViT, stages of 2 and 3 heads."""
    return _vit("thinkingvit_2h_3h", pretrained, {"thinking_stages": (2, 3), **kwargs})


@register_model
def thinkingvit_2h_3h_6h(pretrained: bool = False, **kwargs) -> TimmThinkingViT:
    """ThinkingViT, stages of 2, 3 and 6 heads."""
    return _vit("thinkingvit_2h_3h_6h", pretrained, {"thinking_stages": (2, 3, 6), **kwargs})


@register_model
def thinkingvit_2h_6h(pretrained: bool = False, **kwargs) -> TimmThinkingViT:
    """ThinkingViT, stages of 2 and 6 heads."""
    return _vit("thinkingvit_2h_6h", pretrained, {"thinking_stages": (2, 6), **kwargs})


@register_model
def thinkingvit_3h_6h(pretrained: bool = False, **kwargs) -> TimmThinkingViT:
    """ThinkingViT, stages of 3 and 6 heads: DeiT-Tiny within DeiT-Small."""
    return _vit("thinkingvit_3h_6h", pretrained, {"thinking_stages": (3, 6), **kwargs})


@register_model
def thinkingvit_3h_6h_12h(pretrained: bool = False, **kwargs) -> TimmThinkingViT:
    """ThinkingViT, stages of 3, 6 and 12 heads."""
    return _vit("thinkingvit_3h_6h_12h", pretrained, {"thinking_stages": (3, 6, 12), **kwargs})


@register_model
def thinkingvit_3h_9h(pretrained: bool = False, **kwargs) -> TimmThinkingViT:
    """ThinkingViT, stages of 3 and 9 heads."""
    return _vit("thinkingvit_3h_9h", pretrained, {"thinking_stages": (3, 9), **kwargs})


@register_model
def thinkingvit_3h_12h(pretrained: bool = False, **kwargs) -> TimmThinkingViT:
    """ThinkingViT, stages of 3 and 12 heads."""
    return _vit("thinkingvit_3h_12h", pretrained, {"thinking_stages": (3, 12), **kwargs})


@register_model
def thinkingswin_tiny(pretrained: bool = False, **kwargs) -> TimmThinkingSwin:
    """ThinkingSwin-T: levels of 2, 2, 6 and 2 blocks."""
    options = dict(depths=(2, 2, 6, 2), thinking_stages=((3, 3, 6, 12), (3, 6, 12, 24)))
    return _swin("thinkingswin_tiny", pretrained, {**options, **kwargs})


@register_model
def thinkingswin_small(pretrained: bool = False, **kwargs) -> TimmThinkingSwin:
    """ThinkingSwin-S, the published one: levels of 2, 2, 18 and 2 blocks."""
    options = dict(depths=(2, 2, 18, 2), thinking_stages=((3, 3, 6, 12), (3, 6, 12, 24)))
    return _swin("thinkingswin_small", pretrained, {**options, **kwargs})


@register_model
def thinkingswin_base(pretrained: bool = False, **kwargs) -> TimmThinkingSwin:
    """ThinkingSwin-B: as S, with 128 channels at the first level."""
    options = dict(depths=(2, 2, 18, 2), thinking_stages=((4, 4, 8, 16), (4, 8, 16, 32)))
    return _swin("thinkingswin_base", pretrained, {**options, **kwargs})
