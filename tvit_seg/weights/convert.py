"""Conversion of others' weights to our names and shapes, and back to others' names.

Supported are checkpoints of the authors (classification, segmentation, DynamicViT), DeiT and timm
ViTs, mmseg ViTs, Swin transformers, and our own; :mod:`.names_vit` and :mod:`.names_swin` have
their names.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from ..utils.text import some
from . import names_swin, names_vit
from .fit import fit
from .io import get_state_dict
from .names_swin import is_swin

_SIGNS = {
    "our weights": (r"(^|\.)recycle\.\d+\.scale$", "recycle.N.scale"),
    **names_swin.SIGNS,
    **names_vit.SIGNS,
}

_HEAD = re.compile(r"(decode|auxiliary)_head\.")
_COMPUTED = (".relative_position_index", ".attn_mask")


@dataclass
class Report:
    """Account of a checkpoint's tensors.

    Attributes:
        source: The recognised kind of checkpoint.
        loaded: Names that received values, in part or whole.
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
        if dropped := [f"{name} ({why})" for name, why in self.dropped.items()]:
            lines.append(f"  dropped: {some(dropped, 8)}")
        return "\n".join(lines)


class ConvertedStateDict(OrderedDict):
    """A state dict with a report of its conversion in ``report``."""

    report: Report


def convert_state_dict(
    state_dict: Mapping[str, Any],
    model: nn.Module | None = None,
    prefix: str | None = None,
    ema: bool | None = None,
) -> ConvertedStateDict:
    """Give weights of the authors, DeiT, timm, Microsoft or mmseg our names, and a model's shapes.

    Args:
        state_dict: Weights or a checkpoint, see :func:`~tvit_seg.weights.io.get_state_dict`.
        model: A thinking backbone or segmentor to fit the weights to: smaller ones fill the leading
            slices of its parameters, larger ones are cropped, the position embedding and
            tables of relative positions are resized. None only renames.
        prefix: Selects entries, and is removed from their names.
        ema: Selects averaged or raw weights of a checkpoint that holds both.

    Returns:
        Weights for ``model.load_state_dict``; ``report`` lists what was recognised, cropped and
        left out. Authors' segmentation checkpoints give ``backbone.*`` and ``decode_head.*`` names
        unless ``model`` is a backbone.

    Raises:
        CheckpointError: The names are of no known kind, or positions cannot be resized.
    """
    weights = get_state_dict(state_dict, ema)
    if prefix:
        prefix = prefix.rstrip(".") + "."
        weights = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    report = Report(source=_recognise(weights))
    converted = _to_ours(weights, report)
    _drop_distillation(converted, report)
    converted = _fold_layer_scale(converted)
    _drop_scalars(converted, report)
    if model is not None:
        converted = fit(_address(converted, model, report), model, report)
    result = ConvertedStateDict(converted)
    result.report = report
    report.loaded = list(result)
    return result


def backbone_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the backbone's part of weights under our names, without ``backbone.`` in front."""
    prefix = "backbone."
    inner = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    return inner or dict(weights)


def to_authors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give weights the layout of the authors' code, the reverse of :func:`convert_state_dict`.

    A backbone or classifier gets the layout of their ThinkingViT or ThinkingSwin, a ViT segmentor
    with a Segmenter head ``encoder.*`` and ``decoder.*``. Their classification model projects
    recycled tokens to the full width: rows that it never uses are 0. Their Swin has no norms for
    the maps of lower levels: those are left out.

    Raises:
        CheckpointError: Their code has no place for a weight.
    """
    if any(map(_HEAD.match, weights)):
        return dict(_authors_segmentor(weights))
    weights = backbone_weights(weights)
    if is_swin(weights):
        table = names_swin.AUTHORS
        kept = {k: v for k, v in weights.items() if not re.match(r"norm\d+\.", k)}
        return {_rename(name, table, back=True): value for name, value in kept.items()}
    width = len(weights["norm.weight"])
    theirs = {}
    for name, value in weights.items():
        if re.match(r"recycle\.\d+\.proj\.", name):
            value = torch.cat((value, value.new_zeros(width - len(value), *value.shape[1:])))
        theirs[_rename(name, names_vit.AUTHORS, back=True)] = value
    return theirs


def to_mmseg(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a plain ViT's or Swin's weights from timm's to mmseg's model, which has no head.

    A Swin's norms of maps are optional.
    """
    swin = is_swin(weights)
    table = [*names_swin.MMSEG, names_swin.last_norm(weights)] if swin else names_vit.MMSEG
    theirs = {}
    for name, value in weights.items():
        if swin and ".downsample." in name:
            value = _unfold(value)
        if not name.startswith("head."):
            theirs[_rename(name, table, back=True)] = value
    return theirs


def _rename(name: str, table: Sequence[tuple[str, str]], back: bool = False) -> str:
    """A name by the first row of (ours, theirs) that it starts with, to ours or back."""
    for ours, theirs in table:
        old, new = (ours, theirs) if back else (theirs, ours)
        if match := re.match(re.escape(old).replace(r"\#", r"(\d+)"), name):
            for number in match.groups():
                new = new.replace("#", number, 1)
            return new + name[match.end() :]
    return name


def _recognise(weights: Mapping[str, Tensor]) -> str:
    for source, (pattern, _) in _SIGNS.items():
        if any(re.search(pattern, name) for name in weights):
            return source
    looked_for = "; ".join(f"{source} ({names})" for source, (_, names) in _SIGNS.items())
    raise CheckpointError(
        f"weights of an unknown kind; looked for {looked_for}. Found {some(weights)}"
    )


def _to_ours(weights: Mapping[str, Tensor], report: Report) -> dict[str, Tensor]:
    """Rename to ours; for a segmentor with ``backbone.`` and ``decode_head.`` in front."""
    table = names_swin.everybody(weights) if is_swin(weights) else names_vit.EVERYBODY
    ours = {}
    for name, value in weights.items():
        if name.endswith(_COMPUTED):
            report.dropped[name] = "computed, not learned"
            continue
        name = re.sub(r"^encoder\.", "backbone.", name)
        name = re.sub(r"^decoder\.", "decode_head.", name)
        if _HEAD.match(name):
            if report.source == names_vit.AUTHORS_SEGMENTATION:
                theirs = name.removeprefix("decode_head.")
                value = _head_value(theirs, value)
                name = f"decode_head.{_rename(theirs, names_vit.AUTHORS_DECODER)}"
            ours[name] = value
            continue
        prefix = "backbone." if name.startswith("backbone.") else ""
        renamed = _rename(name.removeprefix(prefix), table)
        if ".downsample." in renamed and report.source == names_swin.MMSEG_SWIN:
            value = _fold(value)
        ours[prefix + renamed] = value
    return ours


def _head_value(theirs: str, value: Tensor, back: bool = False) -> Tensor:
    """An entry of the authors' decoder as mmseg's heads have it, or back."""
    if theirs in ("proj_patch", "proj_classes"):  # used as x @ W
        return value.T.contiguous()
    if theirs == "head.weight":  # a linear layer, for mmseg a 1 x 1 convolution
        return value.flatten(1) if back else value[..., None, None]
    return value


def _authors_segmentor(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    known = tuple(f"decode_head.{ours.partition('#')[0]}" for ours, _ in names_vit.AUTHORS_DECODER)
    for name in filter(_HEAD.match, weights):
        if is_swin(weights) or not name.startswith(known):
            raise CheckpointError(
                f"the authors' code has no place for {name}: its segmentors are ViTs with "
                "Segmenter's linear or mask head"
            )
    for name, value in weights.items():
        part, _, rest = name.partition(".")
        if part == "backbone":
            yield f"encoder.{_rename(rest, names_vit.AUTHORS_ENCODER, back=True)}", value
            continue
        theirs = _rename(rest, names_vit.AUTHORS_DECODER, back=True)
        yield f"decoder.{theirs}", _head_value(theirs, value, back=True)


def _fold(value: Tensor) -> Tensor:
    """Input columns (..., 4 C) in the order of patches that timm merges.

    That is columns of the 2 x 2 patches, then rows, then channels; mmseg's ``nn.Unfold`` has
    channels, then rows, then columns.
    """
    return value.unflatten(-1, (-1, 2, 2)).transpose(-1, -3).flatten(-3)


def _unfold(value: Tensor) -> Tensor:
    """The reverse of :func:`_fold`."""
    return value.unflatten(-1, (2, 2, -1)).transpose(-1, -3).flatten(-3)


def _drop_distillation(weights: dict[str, Tensor], report: Report) -> None:
    for name in list(weights):
        if not re.search(r"(dist_token$|head_dist\.)", name):
            continue
        report.dropped[name] = "distillation"
        del weights[name]
        if name.endswith("dist_token"):  # its position follows the class token's
            key = name.replace("dist_token", "pos_embed")
            if key not in weights:
                raise CheckpointError(f"weights with a {name} but without a {key}")
            weights[key] = torch.cat((weights[key][:, :1], weights[key][:, 2:]), dim=1)


def _fold_layer_scale(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Multiply DINOv2's layer scale (``ls1``, ``ls2``) into the last layer of each branch."""
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
    """Leave out the scalars that early releases have for stages without a projection."""
    for name in list(weights):
        if name.endswith(".scale") and name.replace(".scale", ".proj.weight") not in weights:
            report.dropped[name] = "a recycling scalar without its projection"
            del weights[name]


def _address(weights: dict[str, Tensor], model: nn.Module, report: Report) -> dict[str, Tensor]:
    """Names with or without ``backbone.``, as in the model."""
    inside = {name for name in weights if name.startswith("backbone.")}
    segmentor = any(name.startswith("backbone.") for name in model.state_dict())
    if segmentor == bool(inside):
        return weights
    if segmentor:
        return {f"backbone.{name}": value for name, value in weights.items()}
    report.dropped.update((name, "not of the backbone") for name in weights if name not in inside)
    return backbone_weights(weights)
