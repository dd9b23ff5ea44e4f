"""Transformer block whose tokens may attend to narrower ones as well."""

from timm.models.vision_transformer import Block
from torch import Tensor


class NestedBlock(Block):
    """timm's ``Block`` around nested layers."""

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        lent: Tensor | None = None,
    ) -> Tensor:
        """Run the block.

        Args:
            x: (B, N, d).
            attn_mask: Added to attention logits, or bool: which pairs attend.
            lent: (B, M, d'), d' <= d; input of this block in a narrower stage for other tokens,
                which lend keys and values and are not updated.
        """
        lent = None if lent is None else self.norm1(lent)
        attended = self.attn(self.norm1(x), attn_mask=attn_mask, lent=lent)
        x = x + self.drop_path1(self.ls1(attended))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
