"""Everything that a host needs besides the graphs, as a dict for JSON."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import mmseg.registry
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.models import EncoderDecoder
from torch import nn

from .. import __version__
from ..errors import ExportError
from ..models.gates import Gate

_LOADING = ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")
# arguments of pipeline steps with the one value that the host implements
_KNOWN = dict(interpolation="bilinear", color_type="color")


def describe(model: nn.Module, cfg: Config, divisor: int = 1) -> dict:
    """Describe a model and its config for graphs of any size, multiples of ``divisor``."""
    if not cfg.get("test_dataloader"):
        raise ExportError("the config has no test_dataloader, which defines the preprocessing")
    backbone = getattr(model, "backbone", model)
    segments = isinstance(model, EncoderDecoder)
    slide = None
    if segments and model.test_cfg.get("mode", "whole") == "slide":
        slide = {name: list(model.test_cfg[name]) for name in ("crop_size", "stride")}
    head = model.decode_head if segments else None
    init_default_scope(cfg.get("default_scope", "mmseg"))
    dataset = cfg.test_dataloader.dataset
    meta = getattr(mmseg.registry.DATASETS.get(dataset.type), "METAINFO", {})
    meta = {**meta, **dataset.get("metainfo", {})}
    return {
        "tvit_seg": __version__,
        "model": type(model).__name__,
        "backbone": type(backbone).__name__,
        "thinking_stages": backbone.thinking_stages,
        "gate": describe_gate(backbone.gate),
        "size": None,
        "size_divisor": divisor,
        "batch_size": model.test_cfg.get("window_batch_size", 8) if segments else 8,
        "slide": slide,
        "preprocessing": {
            **_normalisation(model, segments),
            "resize": _resize(cfg) if segments else None,
        },
        "align_corners": head.align_corners if segments else False,
        "mask_threshold": head.threshold if segments and head.out_channels == 1 else None,
        "classes": meta.get("classes"),
        "palette": meta.get("palette"),
    }


def describe_gate(gate: Gate) -> dict:
    """Describe a gate: its ``type``, settings, and whether it ``reads`` ``pixels`` or ``image``."""
    names = ("threshold", "topk", "use_sigmoid", "stage")
    settings = {name: getattr(gate, name) for name in names if hasattr(gate, name)}
    reads = "pixels" if gate.needs_decode_head else "image"
    return {"type": type(gate).__name__, **settings, "reads": reads}


def fix_size(manifest: dict, size: Sequence[int]) -> None:
    """Restrict a manifest to graphs for images, or windows, of one size (H, W) in pixels."""
    manifest["size"] = list(size)
    if manifest["slide"] is not None:
        return
    resize = manifest["preprocessing"]["resize"]
    if resize is not None and resize["keep_ratio"]:
        warnings.warn(
            f"the test pipeline keeps the aspect ratio, but the graphs accept only {size} pixels: "
            "the host stretches images of another ratio, unless graphs are for any size "
            "(--dynamic-size)",
            stacklevel=2,
        )
    manifest["preprocessing"]["resize"] = {"scale": [size[1], size[0]], "keep_ratio": False}


def write_manifest(manifest: dict, folder: Path) -> None:
    """Write ``manifest.json``."""
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def _normalisation(model: nn.Module, segments: bool) -> dict:
    """Mean and standard deviation of pixels in [0, 255], and the order of channels."""
    pre = model.data_preprocessor
    if getattr(pre, "test_cfg", None):
        raise ExportError(
            f"data_preprocessor test_cfg={dict(pre.test_cfg)} pads images for testing, which the "
            "host does not: remove it (thinking backbones pad by themselves)"
        )
    mean, std = [0.0] * 3, [1.0] * 3
    if getattr(pre, "mean", None) is not None:
        mean, std = pre.mean.flatten().tolist(), pre.std.flatten().tolist()
    # mmseg loads BGR, which its preprocessor may convert; timm, for classifiers, loads RGB
    names = ("_channel_conversion", "channel_conversion")  # OneDL's, OpenMMLab's
    rgb = next((getattr(pre, name) for name in names if hasattr(pre, name)), not segments)
    return {"mean": mean, "std": std, "channels": "RGB" if rgb else "BGR"}


def _resize(cfg: Config) -> dict | None:
    """The test pipeline's ``Resize``; warns about other steps that change images."""
    found = None
    for step in cfg.test_dataloader.dataset.get("pipeline", ()):
        kind = str(step["type"]).split(".")[-1]
        if kind == "Resize" and step.get("scale") is not None:
            scale = step["scale"]
            scale = [scale, scale] if isinstance(scale, int) else list(scale)
            found = {"scale": scale, "keep_ratio": step.get("keep_ratio", False)}
        elif kind not in _LOADING:
            _warn_of(kind)
        for name, known in _KNOWN.items():
            if step.get(name, known) != known:
                _warn_of(f"{kind} with {name}={step[name]!r}")
    return found


def _warn_of(step: str) -> None:
    warnings.warn(
        f"the test pipeline's {step} is not part of the host, which implements bilinear Resize "
        "with a scale: do the same to images beforehand",
        stacklevel=4,
    )
