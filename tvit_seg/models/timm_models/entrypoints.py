"""Published models under timm's registry."""

from contextlib import nullcontext
from typing import Any

import torch
from timm.data import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    resolve_pretrained_cfg,
)

from ...errors import ConfigError
from ...utils.checks import check_choice
from ..backbones.arch import ARCHS
from .interface import TimmInterface
from .swin import TimmThinkingSwin
from .vit import TimmThinkingViT

_VITS = {  # heads of each stage; 3h-6h is DeiT-Tiny within DeiT-Small
    "thinkingvit_2h_3h": (2, 3),
    "thinkingvit_2h_3h_6h": (2, 3, 6),
    "thinkingvit_2h_6h": (2, 6),
    "thinkingvit_3h_6h": (3, 6),
    "thinkingvit_3h_6h_12h": (3, 6, 12),
    "thinkingvit_3h_9h": (3, 9),
    "thinkingvit_3h_12h": (3, 12),
}
_SWINS = {  # blocks of each level, heads of each stage; the small one is published
    "thinkingswin_tiny": ((2, 2, 6, 2), ((3, 3, 6, 12), (3, 6, 12, 24))),
    "thinkingswin_small": ((2, 2, 18, 2), ((3, 3, 6, 12), (3, 6, 12, 24))),
    "thinkingswin_base": ((2, 2, 18, 2), ((4, 4, 8, 16), (4, 8, 16, 32))),
}
_TIMM_NAMES = dict(embed_dims="embed_dim", num_layers="depth")
_PRESETS = {  # networks of others, that think: the parts of a published one in two stages
    f"thinkingvit_{arch}": {_TIMM_NAMES.get(key, key): value for key, value in preset.items()}
    for arch, preset in ARCHS.items()
}


def _cfg(
    pool_size: tuple[int, int] | None = None, img_size: int = 224, clip: bool = False
) -> dict[str, Any]:
    return dict(
        num_classes=1000,
        input_size=(3, img_size, img_size),
        pool_size=pool_size,
        crop_pct=0.875,
        interpolation="bicubic",
        mean=OPENAI_CLIP_MEAN if clip else IMAGENET_DEFAULT_MEAN,
        std=OPENAI_CLIP_STD if clip else IMAGENET_DEFAULT_STD,
        first_conv="patch_embed.proj",
        classifier="head",
        paper_ids="arXiv:2507.10800",
        paper_name="ThinkingViT",
    )


default_cfgs = generate_default_cfgs(
    {name: _cfg() for name in _VITS}
    | {name: _cfg(pool_size=(7, 7)) for name in _SWINS}
    | {
        name: _cfg(img_size=preset.get("img_size", 224), clip="clip" in name or "eva02" in name)
        for name, preset in _PRESETS.items()
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
) -> TimmInterface:
    """Build a model as timm does; our own loader reads weights, from local files.

    Args:
        cls: Class of the model.
        variant: Its name.
        pretrained: Loads weights.
        features: Default number of features, from the last, with ``features_only``.
        **kwargs: Arguments of the class, and of ``timm.models.build_model_with_cfg``.

    Raises:
        ConfigError: If pretrained weights are requested without a file, or features other than by
            timm's ``getter``, which are those of an image's exit stage.
    """
    check_choice(f"{variant} feature_cls", kwargs.get("feature_cls", "getter"), ("getter",))
    overlay = dict(pretrained_cfg_overlay or {})
    known = resolve_pretrained_cfg(variant, pretrained_cfg, overlay)
    if known.file:
        overlay.setdefault("custom_load", True)  # TimmInterface.load_pretrained
    if pretrained and not (known.has_weights or known.state_dict):
        raise ConfigError(
            f"{variant}: pretrained=True, but no weights are downloaded. Give pretrained=False, or "
            "pretrained_cfg_overlay=dict(file=PATH) with a local file; checkpoints/README.md lists "
            "published weights"
        )

    def construct(device: Any = None, dtype: torch.dtype | None = None, **arguments):
        with nullcontext() if device is None else torch.device(device):
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


def _register(name: str, cls: type[TimmInterface], **defaults: Any) -> None:
    def entrypoint(pretrained: bool = False, **kwargs) -> TimmInterface:
        options = {**defaults, **kwargs}
        features = len(options.get("depths", range(3)))  # 3 as timm's ViTs, or all levels
        return _build(cls, name, pretrained, features, **options)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    register_model(entrypoint)


for _name, _stages in _VITS.items():
    _register(_name, TimmThinkingViT, thinking_stages=_stages)
for _name, _preset in _PRESETS.items():
    _register(_name, TimmThinkingViT, **_preset)
for _name, (_depths, _stages) in _SWINS.items():
    _register(_name, TimmThinkingSwin, depths=_depths, thinking_stages=_stages)
