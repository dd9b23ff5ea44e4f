"""Multi-head self-attention whose number of heads follows the width of its input."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from timm.layers import Attention, apply_rot_embed_cat
from torch import Tensor

from .nested import NestedLinear, channels


class NestedAttention(Attention):
    """timm's ``Attention`` that runs the first d / head_dim heads on an input of d channels.

    Args:
        dim: Full width.
        num_heads: Heads at full width.
        qkv_bias: Adds a bias to query, key and value.
        proj_bias: Adds a bias to the output projection.
        qkv_groups: Row groups of the joint query-key-value projection that are sliced separately: 3
            for the first heads of each of q, k and v.
        **kwargs: Further arguments of timm's ``Attention``.
    """

    rope_rotate_half = False
    """Rotates channels i and i + head_dim / 2 together, not neighbours."""

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        proj_bias: bool = True,
        qkv_groups: int = 3,
        **kwargs,
    ):
        super().__init__(dim, num_heads, qkv_bias=qkv_bias, proj_bias=proj_bias, **kwargs)
        self.qkv = NestedLinear(dim, dim * 3, bias=qkv_bias, groups=qkv_groups)
        self.proj = NestedLinear(dim, dim, bias=proj_bias)

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        rope: Tensor | None = None,
    ) -> Tensor:
        """Attend over tokens.

        Args:
            x: (B, N, d), d a multiple of the head width.
            attn_mask: Of ``scaled_dot_product_attention``.
            is_causal: Likewise.
            rope: (..., N, 2 head_dim), the sines and cosines by which each token's queries and
                keys are rotated, the same in every head; see :func:`.rope.rotary_table`.

        Returns:
            (B, N, d).
        """
        (batch, length), width = x.shape[:2], channels(x)
        qkv = self.qkv(x).reshape(batch, length, 3, width // self.head_dim, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, N, head_dim) each
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = (apply_rot_embed_cat(t, rope, half=self.rope_rotate_half).to(v) for t in (q, k))
        dtype, slow = v.dtype, self.training and v.is_cpu and v.dtype == torch.bfloat16
        if slow:  # on CPUs it takes 1.5 to 3 times as long as in fp32, forward and backward
            q, k, v = q.float(), k.float(), v.float()
        with torch.autocast("cpu", enabled=False) if slow else nullcontext():
            x = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=attn_mask,
                dropout_p=self.attn_drop.p if self.training else 0.0,
                is_causal=is_causal,
            ).to(dtype)
        x = self.norm(x.transpose(1, 2).reshape(batch, length, width))  # (B, N, d)
        return self.proj_drop(self.proj(x))
