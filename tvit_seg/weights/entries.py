"""Meaning of the entries of checkpoints: one table for every way to load weights.

Entries that the model has are loaded. For all others :data:`ENTRIES` has a row; what it does not
list is refused, since it may change what the network computes.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from ..utils.text import some

if TYPE_CHECKING:
    from .convert import Report

DROP, DROP_HEAD, FOLD, REFUSE = "drop", "drop with the head", "fold", "refuse"

_FOLLOWS = "ThinkingViT.from_weights builds the network that the file describes"
_PLAIN = "no thinking backbone computes that; use weights of a plain ViT or Swin"


@dataclass
class Entry:
    """A kind of entries that a model may lack.

    Attributes:
        pattern: Regular expression for whole names.
        meaning: Purpose in the source network.
        action: :data:`DROP`: nothing in the backbone's features depends on it. :data:`DROP_HEAD`:
            the image-level head depends on it, and is dropped as well. :data:`FOLD`: multiplied
            into the layer before, which is exact. :data:`REFUSE`: the features depend on it.
        advice: Way out of a refusal.
        unless: Pattern of the model's names with which the entry is computed instead.
    """

    pattern: str
    meaning: str
    action: str
    advice: str = ""
    unless: str = ""


COMPUTED = Entry(
    r".*(relative_position_index|relative_coords_table|attn_mask)", "computed, not learned", DROP
)

ENTRIES = (
    COMPUTED,
    Entry(r"head_dist\..*", "head of the distillation", DROP),
    Entry(r"mask_token|decoder(_\w+)?(\..*)?", "of the pre-training", DROP),
    Entry(
        r"(dino_head|ibot_head|projector|predictor|prototypes|text)\..*|logit_(scale|bias)",
        "of the pre-training",
        DROP,
    ),
    Entry(r"norm\d+\..*", "norm of a map that the model does not output", DROP),
    Entry(r"recycle\..*", "recycling of a stage that the model lacks", DROP),
    Entry(r"(pruning|gate)\..*", "pruning or gate that the model lacks", DROP),
    Entry(r"head\.(weight|bias)", "image-level head", DROP),
    Entry(
        r"(pooler|pre_logits|attn_pool|fc_norm|head|heads)\..*|proj",
        "part of another image-level head",
        DROP_HEAD,
    ),
    Entry(r"blocks\.\d+\.ls[12]\.gamma", "layer scale", FOLD),
    Entry(
        r"rope\.(periods|freqs_cos|freqs_sin|inv_freq)",
        "angles of a rotary position embedding",
        REFUSE,
        _FOLLOWS,
        unless=r"rope\..*",
    ),
    Entry(r"(.*\.)?rope\..*", "learned rotary position embedding", REFUSE, _PLAIN),
    Entry(
        r"reg_token",
        "tokens that all others attend to: registers, or that of DeiT's distillation",
        REFUSE,
        f"{_FOLLOWS}; or use a release without them",
    ),
    Entry(r"norm_pre\..*", "norm before the blocks (CLIP)", REFUSE, _FOLLOWS),
    Entry(r"patch_embed\.norm\..*", "norm after the patch embedding", REFUSE, _PLAIN),
    Entry(r".*\.mlp\.(fc1_g|fc1_x)\..*", "gate of the perceptron (SwiGLU)", REFUSE, _FOLLOWS),
    Entry(r".*\.mlp\.norm\..*", "norm inside the perceptron", REFUSE, _FOLLOWS),
    Entry(r".*\.attn\.norm\..*", "norm before the projection of attention", REFUSE, _FOLLOWS),
    Entry(r".*\.attn\.[qk]_norm\..*", "norm of queries and keys", REFUSE, _FOLLOWS),
    Entry(
        r".*(rel_pos|relative_position|cpb_mlp).*",
        "bias of relative positions (BEiT, SAM)",
        REFUSE,
        _PLAIN,
    ),
    Entry(
        r"absolute_pos_embed",
        "absolute position embedding of a Swin",
        REFUSE,
        "use weights of a Swin without it",
    ),
    Entry(
        r"cls_token",
        "class token, which all tokens attend to",
        REFUSE,
        "a ThinkingViT classifies with it; use a release with a class token",
    ),
    Entry(r"pos_embed", "learned position embedding", REFUSE, _FOLLOWS),
)
"""Kinds of entries that a model may lack; the first that matches applies."""

_UNKNOWN = Entry("", "an entry of unknown meaning", REFUSE, _PLAIN)
_DEEPER = Entry("", "a block that the model lacks", REFUSE, "set as many blocks as the source has")

_HIDDEN = (
    "with a norm before the blocks part of a Perception Encoder, whose rotary position embedding "
    f"the weights do not show: {_PLAIN}"
)

_FRESH = r"(recycle\.\d+|pruning|gate|head|norm\d+)\..*"
"""Parts that weights of other networks lack, and that training starts from random values."""

_BIASES = ("patch_embed.proj.bias", "blocks.0.attn.qkv.bias", "layers.0.blocks.0.attn.qkv.bias")

_NORM = r"(.*\.)?\w*norm\w*"


def settle(
    weights: Mapping[str, Tensor], backbone: nn.Module, report: "Report"
) -> dict[str, Tensor]:
    """Account for every entry that only the weights or only the backbone has.

    Args:
        weights: Of one network, see :func:`.canonical.canonical`.
        backbone: Receives the weights later.
        report: Receives what was dropped, and parameters that are absent and therefore 0 or 1.

    Returns:
        Weights with layer scale folded if the backbone has none, and with zeros for biases that no
        block has.

    Raises:
        CheckpointError: An entry that only one of both has changes what the network computes. The
            message gives its name, its meaning and a way out.
    """
    own = backbone.state_dict().keys()
    everything = own | dict(backbone.named_buffers()).keys()
    surplus = {name: _entry(name, everything) for name in weights if name not in own}
    refused: dict[str, list[str]] = {}
    for name, entry in surplus.items():
        if entry.action == REFUSE:
            reason = f"{entry.meaning}, which the model lacks: {entry.advice}"
            refused.setdefault(reason, []).append(report.origin.get(name, name))
        elif entry.action != FOLD:
            report.dropped[name] = entry.meaning
    if "norm_pre.weight" in weights and not any(name.startswith("rope.") for name in everything):
        for name in report.origin:  # CLIP, read with its own network, has neither
            if re.match(r"attn_pool\.|blocks\.\d+\.gamma_1", name):
                refused.setdefault(_HIDDEN, []).append(report.origin[name])
    folded = _fold(weights, [name for name, entry in surplus.items() if entry.action == FOLD])
    settled = {name: value for name, value in folded.items() if name not in surplus}
    if any(entry.action == DROP_HEAD for entry in surplus.values()):
        for name in {"head.weight", "head.bias"} & settled.keys():
            del settled[name]
            report.dropped[name] = "reads the output of that other head"
    reads_norm = {"norm.weight", "norm.bias", "head.weight"} & settled.keys()
    unused = not reads_norm and _norm_is_unused(backbone)
    known = {match[1] for match in (re.fullmatch(_FRESH, name) for name in settled) if match}
    for name in own - settled.keys():
        fresh = re.fullmatch(_FRESH, name)
        if (fresh and fresh[1] not in known) or (unused and name.startswith("norm.")):
            continue
        default = None if fresh else _default(name, weights)
        if default is None:
            refused.setdefault(_absent(name, weights), []).append(name)
        else:
            settled[name] = default
            report.absent.append(name)
    for name in _BIASES:
        if name.replace("bias", "weight") in weights and not {name} & (weights.keys() | own):
            report.absent.append(name)
    if refused:
        parts = [f"{some(sorted(names), 2)} ({reason})" for reason, names in refused.items()]
        more = f"; and {len(parts) - 3} kinds more" if len(parts) > 3 else ""
        raise CheckpointError(f"weights of another network: {'; '.join(parts[:3])}{more}")
    return settled


def foreign(weights: Mapping[str, Tensor]) -> str:
    """Name what the weights have that a plain backbone does not compute; empty if nothing."""
    found: dict[str, str] = {}
    for name in weights:
        entry = next((e for e in ENTRIES if re.fullmatch(e.pattern, name)), None)
        if entry and entry.action == REFUSE and entry.pattern not in ("cls_token", "pos_embed"):
            found.setdefault(entry.meaning, name)
    return some([f"{name} ({meaning})" for meaning, name in found.items()], 3, "; ")


def _norm_is_unused(backbone: nn.Module) -> bool:
    """Return whether the maps, which mmseg's ViT takes before its norm, are all that is used."""
    maps = getattr(backbone, "out_indices", ())
    return bool(maps) and not getattr(backbone, "final_norm", True)


def _entry(name: str, own: Collection[str]) -> Entry:
    for entry in ENTRIES:
        if re.fullmatch(entry.pattern, name):
            if entry.unless and any(re.fullmatch(entry.unless, other) for other in own):
                return COMPUTED
            return entry
    pattern = re.sub(r"\d+", r"\\d+", re.escape(name))
    return _DEEPER if any(re.fullmatch(pattern, other) for other in own) else _UNKNOWN


def _fold(weights: Mapping[str, Tensor], scales: Collection[str]) -> dict[str, Tensor]:
    """Multiply layer scale into the last layer of attention (1) or perceptron (2)."""
    folded = dict(weights)
    for name in scales:
        block, _, which = name.removesuffix(".gamma").rpartition(".ls")
        layer = f"{block}.{'attn.proj' if which == '1' else 'mlp.fc2'}"
        for part in {f"{layer}.weight", f"{layer}.bias"} & folded.keys():
            value = folded[part].to(torch.promote_types(folded[part].dtype, torch.float32))
            folded[part] = value * weights[name].view(-1, *[1] * (value.ndim - 1))
    return folded


def _default(name: str, weights: Mapping[str, Tensor]) -> Tensor | None:
    """Value of a parameter that the source network computes without; None if there is none."""
    layer, _, part = name.rpartition(".")
    norm = f"{layer.rpartition('.')[0]}.norm1.weight"
    if part == "gamma" and norm in weights:
        return torch.ones(len(weights[norm]))
    if part != "bias" or f"{layer}.weight" not in weights:
        return None
    if re.fullmatch(_NORM, layer) and any(re.fullmatch(_NORM + r"\.bias", n) for n in weights):
        return None  # networks have these in all norms or in none
    return torch.zeros(len(weights[f"{layer}.weight"]))


def _absent(name: str, weights: Mapping[str, Tensor]) -> str:
    """Reason to refuse weights that lack a parameter of the model."""
    if name.startswith("norm.") and "fc_norm.weight" in weights:
        return (
            "absent: fc_norm normalises pooled tokens only, and those cannot be recycled or "
            "decoded; use the weights from before that fine-tuning"
        )
    if entry := next((e for e in ENTRIES if e.advice and re.fullmatch(e.pattern, name)), None):
        return f"{entry.meaning}, which the weights lack: {entry.advice}"
    return "absent, but the model has it: make it as deep as the source and of the same parts"
