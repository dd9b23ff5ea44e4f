"""Fused attention for decode heads that ask for attention weights nobody uses."""

from torch import Tensor, nn


class FusedMultiheadAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` that returns no weights, and so may use fused attention."""

    def forward(self, *args, need_weights: bool = False, **kwargs) -> tuple[Tensor, None]:
        """As in ``nn.MultiheadAttention``, but never with weights.

        Args:
            *args: Query, key, value as there.
            need_weights: Disregarded.
            **kwargs: As there.

        Returns:
            The output, and None.
        """
        return super().forward(*args, need_weights=False, **kwargs)


def fuse_attention(module: nn.Module) -> nn.Module:
    """Makes every ``nn.MultiheadAttention`` inside a module a fused one; results do not change.

    Args:
        module: Changed in place; parameters and their names stay.

    Returns:
        The module.
    """
    for part in module.modules():
        if type(part) is nn.MultiheadAttention:
            part.__class__ = FusedMultiheadAttention
    return module
