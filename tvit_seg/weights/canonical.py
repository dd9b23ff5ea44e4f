"""One shape, timm's, for parts of a network that code bases keep in several."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..utils.text import some

_SCALE = re.compile(
    r"(blocks\.\d+)\.(?:(?:attn|ffn|mlp)\.)?(?:gamma|ls|layer_?scale|lambda)_?([12])"
    r"(?:\.(?:gamma|weight|lambda1))?"
)
"""Layer scale of attention (1) and perceptron (2), in all its spellings."""


def canonical(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the entries of one network, under our names, timm's shapes.

    All spellings of layer scale become ``lsN.gamma``; queries, keys and values are joined, with
    zeros for the biases that none of the blocks has; masked biases are multiplied with their mask;
    a distillation token, with its position, becomes a register.

    Raises:
        CheckpointError: Only some blocks have an entry, or an entry lacks its counterpart.
    """
    ours = {}
    for name, value in weights.items():
        scale = _SCALE.fullmatch(name)
        ours[f"{scale[1]}.ls{scale[2]}.gamma" if scale else name] = value
    _check_blocks(ours)
    for name in [name for name in ours if name.endswith(".mlp.fc1_x.weight")]:
        if name.replace("fc1_x", "fc1_g") not in ours:  # a perceptron without a gate
            for part in {name, name.replace(".weight", ".bias")} & ours.keys():
                ours[part.replace("fc1_x", "fc1")] = ours.pop(part)
    for name in [name for name in ours if name.endswith(".qkv.bias_mask")]:
        mask = ours.pop(name)
        ours[name.removesuffix("_mask")] = mask * _needed(ours, name.removesuffix("_mask"), name)
    _join(ours)
    for name, dims in (("cls_token", 1), ("pos_embed", 2)):
        if name in ours and ours[name].ndim == dims:  # CLIP's
            ours[name] = ours[name].reshape(1, -1, ours[name].shape[-1])
    if "dist_token" in ours:
        position = _needed(ours, "pos_embed", "dist_token")
        ours["reg_token"] = ours.pop("dist_token") + position[:, 1:2]
        ours["pos_embed"] = torch.cat((position[:, :1], position[:, 2:]), dim=1)
    return ours


def _needed(weights: Mapping[str, Tensor], name: str, by: str) -> Tensor:
    if name not in weights:
        raise CheckpointError(f"weights with {by} but without {name}")
    return weights[name]


def _check_blocks(weights: Mapping[str, Tensor]) -> None:
    blocks: dict[str, set[str]] = {}
    for name in weights:
        if match := re.match(r"((?:layers\.\d+\.)?blocks\.\d+)\.(.*)", name):
            blocks.setdefault(match[1], set()).add(match[2])
    parts = set().union(*blocks.values())
    lacking = [f"{b}.{part}" for b, found in blocks.items() for part in sorted(parts - found)]
    if lacking:
        raise CheckpointError(
            f"incomplete or unknown weights: other blocks have what these lack: {some(lacking)}"
        )


def _join(weights: dict[str, Tensor]) -> None:
    """Join ``attn.{q,k,v}`` to ``attn.qkv``, in place."""
    joined: dict[str, dict[str, Tensor]] = {}
    for name in list(weights):
        if match := re.fullmatch(r"(.*\.attn)\.([qkv])\.(weight|bias)", name):
            joined.setdefault(f"{match[1]}.qkv.{match[3]}", {})[match[2]] = weights.pop(name)
    for name, parts in joined.items():
        if name.endswith(".weight") and len(parts) < 3:
            raise CheckpointError(f"{name}: only {' and '.join(parts)} of q, k and v are there")
        zeros = torch.zeros_like(next(iter(parts.values())))
        weights[name] = torch.cat([parts.get(part, zeros) for part in "qkv"])


def from_google(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Transpose the arrays of Google's ``.npz`` files, with dots for slashes in their names.

    Returns:
        The weights, and what the arrays tell of the network: its width and number of heads.
    """
    theirs: dict[str, Tensor] = {}
    recorded: dict[str, int] = {}
    for key, value in weights.items():
        name = re.sub(r"(^|\.)cls$", r"\1cls_token", key.replace("/", "."))
        if name.endswith((".query.kernel", ".key.kernel", ".value.kernel")):
            recorded.update(embed_dims=value.shape[0], num_heads=value.shape[1])
            value = value.flatten(1).T  # (D, heads, D / heads)
        elif name.endswith(".kernel"):
            value = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.flatten(0, -2).T
        elif name.endswith(".bias"):
            value = value.flatten()
        name = re.sub(r"\.(kernel|scale)$", ".weight", name)
        theirs[name] = value.contiguous()
    return theirs, recorded
