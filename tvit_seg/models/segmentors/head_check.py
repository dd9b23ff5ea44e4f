"""Whether decode heads fit a thinking backbone, said before anything runs."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from numbers import Integral

from mmseg.models import BaseSegmentor
from torch import nn

from ..backbones import ThinkingBackbone

_NEEDS_MMDET = ("Mask2FormerHead", "MaskFormerHead")
_NEEDS_CLASS_TOKENS = ("DPTHead",)
_OF_OTHERS = {"DDRHead": "DDRNet", "PIDHead": "PIDNet", "SideAdapterCLIPHead": "SideAdapterNetwork"}
"""Heads that read the branches of one backbone."""


def check_head_config(head: dict | Sequence[dict]) -> None:
    """Looks at the config of a decode head.

    Args:
        head: As in a segmentor's config.

    Raises:
        ValueError: If it is no config, a cascade of heads, one that needs a package which is
            absent, or one whose classes or channels are no number of them.
    """
    check_counts("decode_head", head)
    if isinstance(head, Sequence):
        names = ", ".join(str(part.get("type")) for part in head)
        raise ValueError(
            f"decode_head=[{names}] is a cascade; ThinkingEncoderDecoder takes a single head. "
            "mmseg's CascadeEncoderDecoder takes thinking backbones as it does others"
        )
    name = str(head.get("type")).rpartition(".")[-1]
    if name in _NEEDS_MMDET and find_spec("mmdet") is None:
        raise ValueError(
            f"decode head {name} needs mmdetection, which is not installed; what mmsegmentation "
            "has by itself works: UPerHead, SegmenterMaskTransformerHead, IterativeDecodeHead, ..."
        )


def check_counts(name: str, heads: dict | Sequence[dict] | None) -> None:
    """Raises ValueError if heads are no configs, or their classes or channels no integers >= 1.

    Args:
        name: In the segmentor's config.
        heads: One config or several.
    """
    for head in heads if isinstance(heads, Sequence) else [heads]:
        if head is None:
            continue
        if not isinstance(head, Mapping):
            raise ValueError(f"{name}={heads!r} must be the config of a head")
        for key in {"num_classes", "channels"} & head.keys():
            if not isinstance(head[key], Integral) or head[key] < 1:
                raise ValueError(f"{name} {key}={head[key]!r} must be an integer >= 1")


def check_heads(model: nn.Module) -> None:
    """Looks at which maps heads read straight from a thinking backbone.

    Args:
        model: mmseg's segmentors are looked at, unless a neck or another backbone is in them.

    Raises:
        ValueError: If a head reads a map that is not there, expects other channels, does not go
            with class tokens beside the maps or their absence, or is made for another backbone.
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
    pairs = getattr(backbone, "output_cls_token", False)
    if pairs != (name in _NEEDS_CLASS_TOKENS):
        raise ValueError(
            f"decode head {name} reads {'maps alone' if pairs else 'class tokens beside the maps'}:"
            f" use ThinkingViT with output_cls_token={not pairs}"
        )
    if name in _OF_OTHERS:
        raise ValueError(f"decode head {name} reads branches that only {_OF_OTHERS[name]} has")
    if not hasattr(head, "in_index"):
        return
    widths = backbone.out_channels
    listed = isinstance(head.in_index, Sequence)
    indices = head.in_index if listed else [head.in_index]
    missing = [index for index in indices if not -len(widths) <= index < len(widths)]
    if missing:
        raise ValueError(
            f"decode head {name} reads map {missing[0]} (in_index={head.in_index}), but {source} "
            f"returns {len(widths)}: set in_index, or the backbone's out_indices"
        )
    found = [widths[index] for index in indices]
    # inputs that are concatenated are expected as one
    expected = (
        list(head.in_channels) if isinstance(head.in_channels, Sequence) else head.in_channels
    )
    if expected not in (found, sum(found)):
        raise ValueError(
            f"decode head {name} has in_channels={head.in_channels}, but {source} gives it "
            f"{found if listed else found[0]} (in_index={head.in_index})"
        )
    finest = getattr(head, "c1_bottleneck", None)  # of DeepLabV3+, which reads the first map, too
    if finest is not None and finest.conv.in_channels != widths[0]:
        raise ValueError(
            f"decode head {name} has c1_in_channels={finest.conv.in_channels}, but the first map "
            f"of {source} has {widths[0]}"
        )
