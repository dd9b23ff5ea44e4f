"""Rules that cut each kind of torch layer to some of its channels.

A mask says which channels of a full layer are there in a stage. A layer's rule takes the mask of
its input and gives that of its output, the parts of its parameters that are read, and the
attributes that change with the width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ...errors import ConfigError

Runs = tuple[tuple[int, int], ...]
"""Start and length of each run of neighbouring channels."""


@dataclass(frozen=True)
class Narrowing:
    """A layer at some of its channels.

    Attributes:
        out: (channels of the output,) bool, those that are there.
        cuts: For each parameter or buffer, by name, the runs that are read along each dimension.
        attributes: What else differs in a plain layer of this width.
    """

    out: Tensor
    cuts: dict[str, dict[int, Runs]]
    attributes: dict[str, object] = field(default_factory=dict)


Rule = Callable[[Tensor, Tensor], Narrowing]
"""Takes the mask of the input, and that of the output for layers whose output is free."""


def runs_of(mask: Tensor) -> Runs:
    """The runs of neighbouring channels in a bool mask (C,)."""
    edges = torch.diff(mask.int(), prepend=torch.zeros(1), append=torch.zeros(1)).nonzero()
    return tuple((int(start), int(end - start)) for start, end in edges.view(-1, 2))


def cut(x: Tensor, runs: dict[int, Runs]) -> Tensor:
    """Parts of a tensor, a view where each dimension is cut to a single run."""
    for dim, parts in runs.items():
        pieces = [x.narrow(dim, start, length) for start, length in parts]
        x = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)
    return x


def leading(channels: int, width: int, full: int) -> Tensor:
    """The mask of the leading ``width / full`` of some channels, rounded down, but at least one."""
    return torch.arange(channels) < max(1, channels * width // full)


def rule_of(module: nn.Module) -> tuple[Rule, int] | None:
    """The rule of a layer and the dimension of its channels; None for any other module."""
    for kind, (rule, dim) in _RULES.items():
        if isinstance(module, kind):
            return partial(rule, module), dim
    return None


def _linear(layer: nn.Linear, seen: Tensor, out: Tensor) -> Narrowing:
    return Narrowing(
        out,
        {"weight": {0: runs_of(out), 1: runs_of(seen)}, "bias": {0: runs_of(out)}},
        dict(in_features=int(seen.sum()), out_features=int(out.sum())),
    )


def _conv(layer: _ConvNd, seen: Tensor, out: Tensor) -> Narrowing:
    groups = 1
    if layer.groups > 1:
        kept = _whole_groups(seen, layer.groups)
        out, groups = kept.repeat_interleave(layer.out_channels // layer.groups), int(kept.sum())
    weight = {0: runs_of(out), 1: runs_of(seen)}
    if isinstance(layer, _ConvTransposeNd):
        weight = {0: weight[1], 1: weight[0]}
    if layer.groups > 1:
        del weight[1]  # lies inside a group
    return Narrowing(
        out,
        {"weight": weight, "bias": {0: runs_of(out)}},
        dict(in_channels=int(seen.sum()), out_channels=int(out.sum()), groups=groups),
    )


def _channel_norm(layer: _NormBase, seen: Tensor, _: Tensor) -> Narrowing:
    names = ("weight", "bias", "running_mean", "running_var")
    runs = runs_of(seen)
    return Narrowing(seen, {name: {0: runs} for name in names}, dict(num_features=int(seen.sum())))


def _layer_norm(layer: nn.LayerNorm, seen: Tensor, _: Tensor) -> Narrowing:
    if len(layer.normalized_shape) > 1:
        raise ConfigError(f"normalized_shape={layer.normalized_shape} has more than one dimension")
    runs = runs_of(seen)
    return Narrowing(
        seen, {"weight": {0: runs}, "bias": {0: runs}}, dict(normalized_shape=(int(seen.sum()),))
    )


def _group_norm(layer: nn.GroupNorm, seen: Tensor, _: Tensor) -> Narrowing:
    groups = layer.num_groups
    if groups > 1:  # a single one is all channels, as in a layer norm
        groups = int(_whole_groups(seen, groups).sum())
    runs = runs_of(seen)
    return Narrowing(
        seen,
        {"weight": {0: runs}, "bias": {0: runs}},
        dict(num_groups=groups, num_channels=int(seen.sum())),
    )


def _embedding(layer: nn.Embedding, seen: Tensor, out: Tensor) -> Narrowing:
    return Narrowing(out, {"weight": {1: runs_of(out)}}, dict(embedding_dim=int(out.sum())))


def _attention(layer: nn.MultiheadAttention, seen: Tensor, _: Tensor) -> Narrowing:
    if not layer._qkv_same_embed_dim or layer.bias_k is not None:
        raise ConfigError("its keys or values have a width or a bias of their own")
    heads, width = int(_whole_groups(seen, layer.num_heads).sum()), int(seen.sum())
    runs, joint = runs_of(seen), runs_of(seen.repeat(3))  # rows of all of q, of k, of v
    return Narrowing(
        seen,
        {
            "in_proj_weight": {0: joint, 1: runs},
            "in_proj_bias": {0: joint},
            "out_proj.weight": {0: runs, 1: runs},
            "out_proj.bias": {0: runs},
        },
        dict(embed_dim=width, kdim=width, vdim=width, num_heads=heads),
    )


def _whole_groups(seen: Tensor, groups: int) -> Tensor:
    """Find the groups of channels that are there, (groups,) bool; each as a whole or not at all."""
    parts = seen.view(groups, -1)
    if not torch.equal(parts.all(1), parts.any(1)):
        raise ConfigError(
            f"it has groups or heads of {parts.shape[1]} channels, and {int(seen.sum())} channels "
            "are no whole number of them"
        )
    return parts.all(1)


_RULES: dict[type, tuple[Callable[..., Narrowing], int]] = {
    nn.Linear: (_linear, -1),
    _ConvNd: (_conv, 1),
    _NormBase: (_channel_norm, 1),
    nn.LayerNorm: (_layer_norm, -1),
    nn.GroupNorm: (_group_norm, 1),
    nn.Embedding: (_embedding, -1),
    nn.MultiheadAttention: (_attention, -1),
}
