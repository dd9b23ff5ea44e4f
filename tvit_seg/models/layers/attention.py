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
        lent: Tensor | None = None,
    ) -> Tensor:
        """Attend over tokens.

        Args:
            x: (B, N, d), d a multiple of the head width.
            attn_mask: Of ``scaled_dot_product_attention``.
            is_causal: Likewise.
            rope: (..., N + M, 2 head_dim), the sines and cosines by which each token's queries and
                keys are rotated, the same in every head; see :func:`.rope.rotary_table`.
            lent: (B, M, d'), d' <= d, further tokens that lend keys and values: all heads of the
                leading d' input channels, as if they were zero-padded.

        Returns:
            (B, N, d).
        """
        (batch, length), width = x.shape[:2], channels(x)
        q, k, v = self._heads(self.qkv(x), 3, width)  # (B, heads, N, head_dim) each
        if lent is not None:
            weight, bias = self.qkv.slices(channels(lent), 3 * width)
            bias = None if bias is None else bias[width:]
            lent_k, lent_v = self._heads(F.linear(lent, weight[width:], bias), 2, width)
            k, v = torch.cat((k, lent_k), dim=2), torch.cat((v, lent_v), dim=2)
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            half = self.rope_rotate_half
            q = apply_rot_embed_cat(q, rope[..., :length, :], half=half).to(v)
            k = apply_rot_embed_cat(k, rope, half=half).to(v)
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

    def _heads(self, x: Tensor, parts: int, width: int) -> Tensor:
        """Split (B, N, parts d) into (parts, B, heads, N, head_dim)."""
        x = x.reshape(*x.shape[:2], parts, width // self.head_dim, self.head_dim)
        return x.permute(2, 0, 3, 1, 4)
