"""Everybody's weights under our names and in our shapes.

Our names are timm's (``blocks.N.attn.qkv``, ...) plus ``recycle.I.{proj,scale}`` and
``pruning.predictors.K``; decode heads keep mmseg's. Read are checkpoints of the authors
(classification, segmentation, DynamicViT), DeiT and timm ViTs, mmseg ViTs, Swin transformers
(``checkpoint_swin.py`` has their names), and our own.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from ..utils.text import some
from .entries import check_entries
from .fit import fit
from .io import get_state_dict
from .names_swin import SIGNS as SWIN_SIGNS
from .names_swin import is_swin, rename_swin

AUTHORS_SEGMENTATION = "authors' segmentation weights"

# names that only this family has, as a pattern and to read; to be tried in this order
_SIGNS = {
    "our weights": (r"(^|\.)recycle\.\d+\.scale$", "recycle.N.scale"),
    **SWIN_SIGNS,
    AUTHORS_SEGMENTATION: (r"^encoder\._thinking_", "encoder._thinking_*"),
    "authors' ThinkingViT weights": (
        r"^(alpha\.\d+|proj_layer\d*\..*)$",
        "alpha.N or proj_layer*.weight",
    ),
    "mmseg ViT weights": (r"(^|\.)layers\.\d+\.ln1\.weight$", "layers.N.ln1.weight"),
    "distilled DeiT weights": (r"(^|\.)dist_token$", "dist_token"),
    "timm ViT weights": (
        r"(^|(?<!\d)\.)blocks\.\d+\.attn\.qkv\.weight$",
        "blocks.N.attn.qkv.weight",
    ),
}

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
            relative positions) or made for other image channels (patch embedding).
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
                lines.append(f"  {name}: {some(names, 8)}")
        if self.dropped:
            lines.append(
                "  dropped: " + some((f"{name} ({why})" for name, why in self.dropped.items()), 8)
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
        converted = fit(_address(converted, model, report), model, report)
    result = ConvertedStateDict(converted)
    result.report = report
    report.loaded = list(result)
    return result


def _recognise(weights: Mapping[str, Tensor]) -> str:
    """Which family of checkpoints the names belong to."""
    for source, (pattern, _) in _SIGNS.items():
        if any(re.search(pattern, name) for name in weights):
            return source
    looked_for = "; ".join(f"{source} ({names})" for source, (_, names) in _SIGNS.items())
    raise CheckpointError(
        f"weights of an unknown kind; looked for {looked_for}. Found {some(weights)}"
    )


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
