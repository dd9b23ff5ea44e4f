"""Transformer block at any width."""

from timm.models.vision_transformer import Block
from torch import Tensor

from .attention import NestedAttention
from .nested import KeyMaskedLinear, NestedLayerScale


class NestedBlock(Block):
    """timm's ``Block`` of nested layers, which may rotate queries and keys by their positions.

    Args:
        dim: Full width.
        num_heads: Heads at full width.
        qkv_bias: Adds a bias to query, key and value.
        k_bias: False leaves keys without it.
        rope_rotate_half: Rotates channels i and i + head_dim / 2 together, not neighbours.
        init_values: Initial factor of the layer scale; None or 0 for none.
        **kwargs: Further arguments of timm's ``Block``, with nested layers for norm and perceptron.
    """

    attn: NestedAttention

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = False,
        k_bias: bool = True,
        rope_rotate_half: bool = False,
        init_values: float | None = None,
        **kwargs,
    ):
        super().__init__(dim, num_heads, qkv_bias=qkv_bias, attn_layer=NestedAttention, **kwargs)
        self.attn.rope_rotate_half = rope_rotate_half
        if not k_bias:
            self.attn.qkv = KeyMaskedLinear(dim, 3 * dim, bias=qkv_bias, groups=3)
        if init_values:
            self.ls1 = NestedLayerScale(dim, init_values)
            self.ls2 = NestedLayerScale(dim, init_values)

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, rope: Tensor | None = None
    ) -> Tensor:
        """Run the block on tokens (B, N, d); see :meth:`.attention.NestedAttention.forward`."""
        attended = self.attn(self.norm1(x), attn_mask=attn_mask, rope=rope)
        x = x + self.drop_path1(self.ls1(attended))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
