"""Conversion of others' weights to our names and shapes, and back to others' names.

:mod:`.names_vit` and :mod:`.names_swin` have the names of each code base, :mod:`.canonical` joins
what they keep in parts, :mod:`.entries` decides on what a model has no place for, :mod:`.fit` cuts.
"""

import copy
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from ..utils.text import some
from . import names_swin, names_vit
from .canonical import canonical, from_google
from .entries import COMPUTED
from .fit import fit
from .io import get_state_dict, recorded_backbone
from .names_swin import is_swin

OURS = "our weights"

_SIGNS = {
    OURS: (r"(^|\.)recycle\.\d+\.scale$", "recycle.N.scale"),
    **names_swin.SIGNS,
    **names_vit.SIGNS,
}

_HEAD = re.compile(r"(decode|auxiliary)_head\.")

_PATCHES = re.compile(
    r"((?:.*\.)?)(?:patch_embed\.proj(?:ection)?|embeddings\.patch_embeddings?(?:\.projection)?"
    r"|embedding|conv_proj|conv1|features\.0\.0)\.weight"
)
"""A patch embedding's weights in any code base; what precedes it is the network's place."""


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
        absent: Names that the source network computes without: 0, layer scale 1.
        missing: The model's names that keep their initial values.
        dropped: The checkpoint's names that were not used, with the reason.
        recorded: The backbone's arguments that the checkpoint records.
        origin: The checkpoint's names of renamed entries.
        head_dim: Width of the model's attention heads if the checkpoint does not record its own.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    cropped: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    recorded: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    head_dim: int | None = None

    def __str__(self) -> str:
        lines = [f"recognised as {self.source}; {len(self.loaded)} tensors read"]
        for name in ("cropped", "partial", "resized", "missing"):
            if names := getattr(self, name):
                lines.append(f"  {name}: {some(names, 8)}")
        if self.head_dim:
            lines.append(f"  heads of {self.head_dim} channels, which the file does not record")
        if self.absent:
            kinds = dict.fromkeys(re.sub(r"\.\d+\.", ".N.", name) for name in self.absent)
            lines.append(f"  absent, so 0 (layer scale 1): {some(kinds, 8)}")
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
    """Give weights of other code bases our names, and a model's shapes.

    Args:
        state_dict: Weights or a checkpoint, see :func:`~tvit_seg.weights.io.get_state_dict`. The
            result of an earlier conversion is only fitted.
        model: A thinking backbone or segmentor to fit the weights to: smaller ones fill the leading
            slices of its parameters, larger ones are cropped, the position embedding and
            tables of relative positions are resized. None only renames.
        prefix: Selects entries, and is removed from their names. A common prefix is found.
        ema: Selects averaged or raw weights of a checkpoint that holds both.

    Returns:
        Weights for ``model.load_state_dict``; ``report`` lists what was recognised, cropped and
        left out. Authors' segmentation checkpoints give ``backbone.*`` and ``decode_head.*`` names
        unless ``model`` is a backbone.

    Raises:
        CheckpointError: The names are of no known kind, positions cannot be resized, or an entry
            that only the weights or only the model has changes what the network computes, see
            :mod:`.entries`.
    """
    converted: Mapping[str, Tensor] = state_dict
    if isinstance(state_dict, ConvertedStateDict):
        report = copy.deepcopy(state_dict.report)
    else:
        weights = get_state_dict(state_dict, ema)
        if prefix:
            prefix = prefix.rstrip(".") + "."
            weights = {
                k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)
            }
        report = Report(source="", recorded=recorded_backbone(state_dict))
        converted = _to_ours(weights, report)
        _drop_scalars(converted, report)
    if model is not None:
        converted = fit(_address(converted, model, report), model, report)
    result = ConvertedStateDict(converted)
    result.report = report
    report.loaded = [name for name in result if name not in report.absent]
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


def _find_network(names: Iterable[str]) -> str:
    """Find the prefix of a backbone's names: ``''``, ``'backbone.'``, or that of a container.

    Raises:
        CheckpointError: There are several networks.
    """
    names = list(names)
    found = []
    for place in dict.fromkeys(m[1] for m in map(_PATCHES.fullmatch, names) if m):
        inner = [name.removeprefix(place) for name in names if name.startswith(place)]
        if any(re.search(sign, name) for sign, _ in _SIGNS.values() for name in inner):
            found.append(place)
    chosen = [place for place in found if place in ("", "backbone.")] or found or [""]
    if len(chosen) > 1:
        raise CheckpointError(
            f"{len(found)} networks: name one of the prefixes {some(found)}, such as "
            f"prefix={found[0].rstrip('.')!r} (--prefix)"
        )
    return chosen[0]


def _to_ours(weights: Mapping[str, Tensor], report: Report) -> dict[str, Tensor]:
    """Rename to ours; for a segmentor with ``backbone.`` and ``decode_head.`` in front."""
    if any(name.endswith("/kernel") for name in weights):
        weights, recorded = from_google(weights)
        report.recorded.update(recorded)
    place = _find_network(weights)
    inner = {k.removeprefix(place): v for k, v in weights.items() if k.startswith(place)}
    report.source = _recognise(inner)
    backbone = _rename_backbone(inner, report)
    parent = place.removesuffix("backbone.").removesuffix("encoder.")
    if parent == place:
        outside = [name for name in weights if not name.startswith(place)]
        report.dropped.update(dict.fromkeys(outside, f"outside of {place}"))
        return backbone
    ours = {f"backbone.{name}": value for name, value in backbone.items()}
    for name, value in weights.items():
        if name.startswith(parent) and not name.startswith(place):
            name = re.sub(r"^decoder\.", "decode_head.", name.removeprefix(parent))
            if report.source == names_vit.AUTHORS_SEGMENTATION and _HEAD.match(name):
                theirs = name.removeprefix("decode_head.")
                value = _head_value(theirs, value)
                name = f"decode_head.{_rename(theirs, names_vit.AUTHORS_DECODER)}"
            ours[name] = value
    return ours


def _rename_backbone(weights: Mapping[str, Tensor], report: Report) -> dict[str, Tensor]:
    swin = report.source in names_swin.SIGNS or is_swin(weights)
    table = names_swin.everybody(weights) if swin else names_vit.EVERYBODY
    ours = {}
    for name, value in weights.items():
        if re.fullmatch(COMPUTED.pattern, name):
            report.dropped[name] = COMPUTED.meaning
            continue
        renamed = _rename(name, table)
        if ".downsample." in renamed and report.source == names_swin.MMSEG_SWIN:
            value = _fold(value)
        if renamed in ours:
            raise CheckpointError(f"{report.origin[renamed]} and {name} are both {renamed}")
        ours[renamed] = value
        report.origin[renamed] = name
    if "dist_token" in ours:
        report.origin["reg_token"] = report.origin["dist_token"]
    return canonical(ours)


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


def _drop_scalars(weights: dict[str, Tensor], report: Report) -> None:
    """Leave out the scalars that early releases have for stages without a projection."""
    for name in list(weights):
        if name.endswith(".scale") and name.replace(".scale", ".proj.weight") not in weights:
            report.dropped[name] = "a recycling scalar without its projection"
            del weights[name]


def _address(
    weights: Mapping[str, Tensor], model: nn.Module, report: Report
) -> Mapping[str, Tensor]:
    """Names with or without ``backbone.``, as in the model."""
    inside = {name for name in weights if name.startswith("backbone.")}
    segmentor = any(name.startswith("backbone.") for name in model.state_dict())
    if segmentor == bool(inside):
        return weights
    if segmentor:
        return {f"backbone.{name}": value for name, value in weights.items()}
    report.dropped.update((name, "not of the backbone") for name in weights if name not in inside)
    return backbone_weights(weights)
