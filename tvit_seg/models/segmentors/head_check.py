"""Checks of decode heads against a thinking backbone, before anything runs."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from mmseg.models import BaseSegmentor
from torch import nn

from ...utils.checks import check, check_integer
from ..backbones import ThinkingBackbone
from ..decode_heads import Nested

_NEEDS_MMDET = ("Mask2FormerHead", "MaskFormerHead")
_NEEDS_CLASS_TOKENS = ("DPTHead",)
_OF_OTHERS = {"DDRHead": "DDRNet", "PIDHead": "PIDNet", "SideAdapterCLIPHead": "SideAdapterNetwork"}
"""Heads that read the branches of one backbone."""


def check_head_configs(name: str, heads: Sequence[dict]) -> None:
    """Check configs of heads, of the argument ``name`` of a segmentor, one by one."""
    for head in heads:
        one = "the config of one head (mmseg's CascadeEncoderDecoder takes a cascade)"
        check(isinstance(head, Mapping), name, head, one)
        kind = str(head.get("type")).rpartition(".")[-1]
        fits = kind not in _NEEDS_MMDET or find_spec("mmdet") is not None
        check(fits, f"{name} type", kind, "a head that works without mmdetection, as UPerHead does")
        for key in {"num_classes", "channels"} & head.keys():
            check_integer(f"{name} {key}", head[key])


def check_heads(model: nn.Module) -> None:
    """Check that heads fit the maps that they read straight from a thinking backbone.

    Args:
        model: Nothing is checked if it is no mmseg segmentor, has a neck, or has another
            backbone.

    Raises:
        ConfigError: If a head reads a map that does not exist, expects other channels, needs or
            does not accept class tokens, or is tied to another backbone.
    """
    thinks = isinstance(getattr(model, "backbone", None), ThinkingBackbone)
    if not thinks or not isinstance(model, BaseSegmentor) or model.with_neck:
        return
    found = [model.decode_head, model.auxiliary_head if model.with_auxiliary_head else []]
    for heads in found:
        for head in heads if isinstance(heads, (nn.ModuleList, list)) else [heads]:
            _check_head(head, model.backbone)


def _check_head(head: nn.Module, backbone: ThinkingBackbone) -> None:
    head = getattr(head, "kernel_generate_head", head)  # K-Net's other heads follow this one
    name, source = type(head).__name__, type(backbone).__name__
    classes = getattr(head, "num_classes", 2)
    allowed = ">= 2: one class and the rest are num_classes=2, out_channels=1"
    check(classes != 1, f"{name} num_classes", classes, allowed)
    if isinstance(head, Nested):
        found, known = tuple(plan.widths for plan in head.plans), backbone.stage_channels
        check(found == known, f"{name} stage_channels", found, f"{known}, those of {source}")
    pairs = getattr(backbone, "output_cls_token", False)
    wanted = name in _NEEDS_CLASS_TOKENS
    check(pairs == wanted, "output_cls_token", pairs, f"{wanted} (of ThinkingViT) for {name}")
    check(
        name not in _OF_OTHERS, "decode head", name, f"one for {source}, not {_OF_OTHERS.get(name)}"
    )
    if not hasattr(head, "in_index"):
        return
    widths = backbone.out_channels
    listed = isinstance(head.in_index, Sequence)
    indices = head.in_index if listed else [head.in_index]
    fits = all(-len(widths) <= index < len(widths) for index in indices)
    check(fits, f"{name} in_index", head.in_index, f"below {len(widths)}, the maps of {source}")
    found = [widths[index] for index in indices]
    # inputs that are concatenated are expected as one
    given = head.in_channels
    given = list(given) if isinstance(given, Sequence) else given
    allowed = (
        f"{found if listed else found[0]}, the channels of {source} (in_index={head.in_index})"
    )
    check(given in (found, sum(found)), f"{name} in_channels", given, allowed)
    finest = getattr(head, "c1_bottleneck", None)  # of DeepLabV3+, which reads the first map, too
    if finest is not None:
        given = finest.conv.in_channels
        allowed = f"{widths[0]}, the channels of the first map of {source}"
        check(given == widths[0], f"{name} c1_in_channels", given, allowed)
