"""Fused attention for decode heads that compute attention weights but do not use them."""

from typing import Any

from torch import Tensor, nn


class FusedMultiheadAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` that returns no weights, so that it can use fused attention."""

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Return the output and None; ``need_weights`` is ignored."""
        return super().forward(*args, **{**kwargs, "need_weights": False})


def fuse_attention(module: nn.Module) -> nn.Module:
    """Make every ``nn.MultiheadAttention`` in a module a fused one, in place.

    Results, parameters and their names do not change.
    """
    for part in module.modules():
        if type(part) is nn.MultiheadAttention:
            part.__class__ = FusedMultiheadAttention  # of this instance; torch's class stays
    return module
