"""Everybody's weights under our names and in our shapes.

Our names are timm's (``blocks.N.attn.qkv``, ...) plus ``recycle.I.{proj,scale}`` and
``pruning.predictors.K``; decode heads keep mmseg's. Read are checkpoints of the authors
(classification, segmentation, DynamicViT), DeiT and timm ViTs, mmseg ViTs, Swin transformers
(``checkpoint_swin.py`` has their names), and our own.
"""

import logging
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from mmengine.logging import print_log
from timm.layers import resample_patch_embed
from torch import Tensor, nn

from .checkpoint_io import CheckpointError, get_state_dict, read_checkpoint, which_weights
from .checkpoint_shapes import check_entries, resize_position, resize_table
from .checkpoint_swin import AUTHORS_SWIN, is_swin, rename_swin
from .checkpoint_swin import SIGNS as SWIN_SIGNS
from .layers import NestedLayerNorm, NestedLinear

AUTHORS_SEGMENTATION = "authors' segmentation weights"

# timm's name of a block's parts <-> mmseg's
BLOCK_NAMES = {
    "norm1.": "ln1.",
    "norm2.": "ln2.",
    "attn.qkv.": "attn.attn.in_proj_",
    "attn.proj.": "attn.attn.out_proj.",
    "mlp.fc1.": "ffn.layers.0.0.",
    "mlp.fc2.": "ffn.layers.1.",
}

_AUTHORS_BACKBONE = [
    (r"^(?:_thinking_)?alphas?\.(\d+)$", r"recycle.\1.scale"),
    (r"^_thinking_proj_layers\.(\d+)\.", r"recycle.\1.proj."),
    (r"^score_predictor\.", "pruning.predictors."),
    (r"^proj_layer(\d*)\.", lambda m: f"recycle.{int(m[1] or 1) - 1}.proj."),
]
_MMSEG_BACKBONE = [
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^ln1\.", "norm."),
    (r"^layers\.(\d+)\.", r"blocks.\1."),
    *(
        (rf"^(blocks\.\d+\.){re.escape(mmseg)}", rf"\1{timm}")
        for timm, mmseg in BLOCK_NAMES.items()
    ),
]
_AUTHORS_HEAD = [
    (r"^proj_dec\.", "dec_proj."),
    (r"^proj_(patch|classes)$", r"\1_proj.weight"),
    (r"^head\.", "conv_seg."),
    (r"^blocks\.(\d+)\.", r"layers.\1."),
    *(
        (rf"^(layers\.\d+\.){re.escape(timm)}", rf"\1{mmseg}")
        for timm, mmseg in BLOCK_NAMES.items()
    ),
]


@dataclass
class Report:
    """What became of a checkpoint's tensors.

    Attributes:
        source: What the checkpoint was recognised as.
        loaded: Names that got values, in part or whole.
        cropped: Those of them that were larger than the model's.
        partial: Those of them that fill only a leading slice of the model's.
        resized: Those of them that were interpolated (position and patch embedding, tables of
            relative positions).
        missing: The model's names that keep their initial values.
        dropped: The checkpoint's names that were not used, with the reason.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    cropped: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"recognised as {self.source}; {len(self.loaded)} tensors read"]
        for name in ("cropped", "partial", "resized", "missing"):
            if names := getattr(self, name):
                lines.append(f"  {name}: {_shorten(names)}")
        if self.dropped:
            lines.append(
                "  dropped: " + _shorten([f"{name} ({why})" for name, why in self.dropped.items()])
            )
        return "\n".join(lines)


class ConvertedStateDict(OrderedDict):
    """A state dict that says in ``report`` how it came about."""

    report: Report


def convert_state_dict(
    state_dict: Mapping, model: nn.Module | None = None, prefix: str | None = None
) -> ConvertedStateDict:
    """Gives weights of the authors, DeiT, timm, Microsoft or mmseg our names, and a model's shapes.

    Args:
        state_dict: The weights, or a checkpoint that holds them under ``state_dict`` or ``model``.
        model: A thinking backbone or segmentor to fit the weights to: smaller ones fill the leading
            slices of its parameters, larger ones are cropped, the position embedding and
            tables of relative positions are resized. None only renames.
        prefix: Only the entries whose names start so, without it.

    Returns:
        Weights for ``model.load_state_dict``; ``report`` says what was recognised, cropped, left
        out. Authors' segmentation checkpoints give ``backbone.*`` and ``decode_head.*`` names
        unless ``model`` is a backbone.

    Raises:
        CheckpointError: If the names are of no known kind, or nothing fits the model.
    """
    weights = get_state_dict(state_dict)
    if prefix:
        prefix = prefix.rstrip(".") + "."
        weights = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    report = Report(source=_recognise(weights))
    if is_swin(weights):
        converted = rename_swin(weights, report.dropped)
    else:
        converted = _rename_vit(weights, report)
    _drop_scalars(converted, report)
    check_entries(converted)
    if model is not None:
        converted = _fit(_address(converted, model, report), model, report)
    result = ConvertedStateDict(converted)
    result.report = report
    report.loaded = list(result)
    return result


def load_pretrained(
    model: nn.Module, path: str, prefix: str | None = None, ema: bool | None = None
) -> Report:
    """Loads a checkpoint file into a backbone or segmentor and logs what was read.

    Args:
        model: A thinking backbone or segmentor.
        path: A local file: .pth, .bin or .safetensors.
        prefix: Only the entries whose names start so.
        ema: Whether to take averaged or raw weights of a checkpoint that holds both; None takes
            what it holds as ``state_dict``.

    Returns:
        The report.

    Raises:
        CheckpointError: If the file is damaged, holds code, or fits less than half of the
            model's tensors. Tensors are counted, since a narrow model fills a part of each.
    """
    checkpoint = read_checkpoint(path)
    converted = convert_state_dict(get_state_dict(checkpoint, ema), model, prefix)
    report = converted.report
    if (which := which_weights(checkpoint, ema)) != "only":
        report.source += f" ({which})"
    total = len(model.state_dict())
    if len(converted) < total / 2:
        raise CheckpointError(
            f"{path} fits {len(converted)} of the model's {total} tensors, less than half: {report}"
        )
    model.load_state_dict(converted, strict=False)
    print_log(f"Loaded {path}: {report}", logger="current")
    slicing = getattr(getattr(model, "backbone", model), "slicing", None)
    if report.source.startswith(AUTHORS_SWIN) and slicing == "grouped":
        print_log(
            f"{path} needs slicing='leading': with 'grouped' narrow stages will be wrong",
            logger="current",
            level=logging.WARNING,
        )
    return report


def _recognise(weights: Mapping[str, Tensor]) -> str:
    """Which family of checkpoints the names belong to."""
    signs = {
        "our weights": r"(^|\.)recycle\.\d+\.scale$",
        **SWIN_SIGNS,
        AUTHORS_SEGMENTATION: r"^encoder\._thinking_",
        "authors' ThinkingViT weights": r"^(alpha\.\d+|proj_layer\d*\..*)$",
        "mmseg ViT weights": r"(^|\.)layers\.\d+\.ln1\.weight$",
        "distilled DeiT weights": r"(^|\.)dist_token$",
        "timm ViT weights": r"(^|(?<!\d)\.)blocks\.\d+\.attn\.qkv\.weight$",
    }
    for source, pattern in signs.items():
        if any(re.search(pattern, name) for name in weights):
            return source
    looked_for = "; ".join(f"{source} ({_readable(sign)})" for source, sign in signs.items())
    raise CheckpointError(
        f"weights of an unknown kind; looked for {looked_for}. "
        f"Found {_shorten(list(weights)) or 'nothing'}"
    )


def _readable(sign: str) -> str:
    """A pattern as a name with N for a number."""
    for regex, text in (("(^|\\.)", ""), (r"\d+", "N"), (r"\d*", ""), (".*", "*"), ("\\", "")):
        sign = sign.replace(regex, text)
    return sign.strip("^$()").replace("|", ", ")


def _rename_vit(weights: Mapping[str, Tensor], report: Report) -> dict[str, Tensor]:
    """Our names; for a segmentor with ``backbone.`` and ``decode_head.`` in front."""
    renamed = {}
    for name, value in weights.items():
        name = re.sub(r"^encoder\.", "backbone.", name)
        name = re.sub(r"^decoder\.", "decode_head.", name)
        part, _, rest = name.partition(".")
        if part == "backbone":
            renamed[f"backbone.{_apply(_AUTHORS_BACKBONE + _MMSEG_BACKBONE, rest)}"] = value
        elif part == "decode_head":
            authors = report.source == AUTHORS_SEGMENTATION
            rest, value = _head_entry(rest, value) if authors else (rest, value)
            renamed[f"decode_head.{rest}"] = value
        else:
            renamed[_apply(_AUTHORS_BACKBONE + _MMSEG_BACKBONE, name)] = value
    for name in list(renamed):
        if "dist" in name and re.search(r"(dist_token$|head_dist\.)", name):
            report.dropped[name] = "distillation"
            del renamed[name]
            if name.endswith("dist_token"):  # its position follows the class token's
                key = name.replace("dist_token", "pos_embed")
                if key not in renamed:
                    raise CheckpointError(f"weights with a {name} but without a {key}")
                renamed[key] = torch.cat((renamed[key][:, :1], renamed[key][:, 2:]), dim=1)
    return _fold_layer_scale(renamed)


def _fold_layer_scale(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2's factors of each branch (``ls1``, ``ls2``), multiplied into its last layer."""
    folded = {}
    for name, value in weights.items():
        if match := re.fullmatch(r"(.*)\.(attn\.proj|mlp\.fc2)\.(weight|bias)", name):
            scale = weights.get(f"{match[1]}.ls{1 if match[2] == 'attn.proj' else 2}.gamma")
            if scale is not None:
                value = value * scale.view(-1, *[1] * (value.ndim - 1))
        if not re.search(r"\.ls[12]\.gamma$", name):
            folded[name] = value
    return folded


def _drop_scalars(weights: dict[str, Tensor], report: Report) -> None:
    """Leaves out the scalars that early releases have for stages without a projection."""
    for name in list(weights):
        if name.endswith(".scale") and name.replace(".scale", ".proj.weight") not in weights:
            report.dropped[name] = "a recycling scalar without its projection"
            del weights[name]


def _apply(table: list, name: str) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def _head_entry(name: str, value: Tensor) -> tuple[str, Tensor]:
    """An entry of the authors' decoder as mmseg's heads have it."""
    renamed = _apply(_AUTHORS_HEAD, name)
    if name in ("proj_patch", "proj_classes"):  # used as x @ W
        value = value.T.contiguous()
    elif name == "head.weight":  # a linear layer, for mmseg a 1 x 1 convolution
        value = value[..., None, None]
    return renamed, value


def _address(weights: dict[str, Tensor], model: nn.Module, report: Report) -> dict[str, Tensor]:
    """Names with ``backbone.`` in front or not, as the model has them."""
    segmentor = any(name.startswith("backbone.") for name in model.state_dict())
    given = any(name.startswith("backbone.") for name in weights)
    if segmentor and not given:
        return {f"backbone.{name}": value for name, value in weights.items()}
    if given and not segmentor:
        for name in weights:
            if not name.startswith("backbone."):
                report.dropped[name] = "not of the backbone"
        return {
            name.removeprefix("backbone."): value
            for name, value in weights.items()
            if name.startswith("backbone.")
        }
    return weights


def _fit(weights: dict[str, Tensor], model: nn.Module, report: Report) -> dict[str, Tensor]:
    """Weights in the shapes of the model."""
    own = model.state_dict()
    report.missing = [name for name in own if name not in weights]
    backbone = getattr(model, "backbone", model)
    fitted = {}
    for name, value in weights.items():
        if name not in own:
            report.dropped[name] = "the model has no such parameter"
            continue
        target = own[name]
        value = value.to(target.dtype)
        if re.search(r"(^|backbone\.)pos_embed$", name):
            grid = list(backbone.patch_embed.grid_size)
            resized = resize_position(value, grid, backbone.interpolate_mode)
            report.resized += [name] if resized is not value else []
            value = resized
        elif name.endswith("patch_embed.proj.weight") and value.shape[2:] != target.shape[2:]:
            value = resample_patch_embed(value, list(target.shape[2:]))
            report.resized.append(name)
        elif name.endswith(".relative_position_bias_table") and len(value) != len(target):
            value = resize_table(value, model.get_submodule(name.rpartition(".")[0]).window_size)
            report.resized.append(name)
        groups = _groups(model.get_submodule(name.rpartition(".")[0]))
        if why := _mismatch(name, value, target, groups):
            report.dropped[name] = why
            report.missing.append(name)
        else:
            fitted[name] = _slice_into(name, value, target, groups, report)
    return fitted


def _groups(layer: nn.Module) -> tuple[int, int]:
    """Into how many groups the rows and columns of a layer's weight fall, each cut on its own."""
    if isinstance(layer, NestedLinear):
        return layer.groups, layer.in_groups
    return (layer.groups, 1) if isinstance(layer, NestedLayerNorm) else (1, 1)


def _mismatch(name: str, value: Tensor, target: Tensor, groups: tuple[int, int]) -> str | None:
    """Why a tensor cannot be cut or padded to the model's shape; None if it can."""
    image_head = re.search(r"(^|backbone\.)head\.(weight|bias)$", name)
    if image_head and value.shape[0] != target.shape[0]:
        return f"{value.shape[0]} classes, the model has {target.shape[0]}"
    nested = not re.search(r"^(decode_head|auxiliary_head)\.|^(backbone\.)?pruning\.", name)
    for length, count in zip(value.shape, groups, strict=False):
        if length % count:
            return f"a length of {length} does not fall into {count} equal groups"
    if value.ndim != target.ndim or (not nested and value.shape != target.shape):
        return f"shape {tuple(value.shape)}, the model has {tuple(target.shape)}"
    return None


def _slice_into(
    name: str, value: Tensor, target: Tensor, groups: tuple[int, int], report: Report
) -> Tensor:
    """The overlap of both shapes from the checkpoint, the rest as the model has it."""
    if value.shape == target.shape:
        return value
    if any(new > old for new, old in zip(value.shape, target.shape, strict=True)):
        report.cropped.append(name)
    if any(new < old for new, old in zip(value.shape, target.shape, strict=True)):
        report.partial.append(name)
    result = target.clone()
    source, goal = value, result
    for dim in reversed(range(min(value.ndim, 2))):
        source, goal = (x.unflatten(dim, (groups[dim], -1)) for x in (source, goal))
    overlap = tuple(slice(min(a, b)) for a, b in zip(source.shape, goal.shape, strict=True))
    goal[overlap] = source[overlap]
    return result


def _shorten(names: list[str], most: int = 8) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more
