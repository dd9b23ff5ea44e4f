"""One level of a Swin transformer."""

from collections.abc import Callable, Sequence
from functools import partial

from mmcv.cnn import build_activation_layer
from timm.layers import DropPath
from torch import Tensor, nn

from .mlp import NestedMlp
from .nested import NestedLayerNorm
from .patch_merging import NestedPatchMerging
from .window_attention import NestedWindowAttention


class SwinBlock(nn.Module):
    """Window attention, then a perceptron, each after a norm and with a residual connection.

    Args:
        dim: Full width.
        num_heads: Heads at full width.
        mlp_ratio: Hidden width of the perceptron over its width.
        drop: Dropout rate after projections.
        drop_path: Stochastic depth rate.
        act_cfg: Activation of the perceptron.
        norm: Factory of layer norms.
        **attention: Further arguments of :class:`NestedWindowAttention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        drop: float,
        drop_path: float,
        act_cfg: dict,
        norm: Callable[[int], NestedLayerNorm],
        **attention,
    ):
        super().__init__()
        self.norm1 = norm(dim)
        self.attn = NestedWindowAttention(dim, num_heads, proj_drop=drop, **attention)
        self.norm2 = norm(dim)
        activation = partial(build_activation_layer, act_cfg)
        self.mlp = NestedMlp(dim, int(mlp_ratio * dim), act_layer=activation, drop=drop)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on a map (n, h, w, d), d a multiple of the head width."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SwinLevel(nn.Module):
    """Blocks of one level, after the patch merging that precedes it.

    Args:
        blocks: Blocks on maps (n, h, w, d).
        downsample: Patch merging; None at the first level.
    """

    def __init__(self, blocks: Sequence[SwinBlock], downsample: NestedPatchMerging | None = None):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, width: int, run: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        """Run the level.

        Args:
            x: (n, h, w, d), from the level before.
            width: Width of this level in the current stage.
            run: Applies a block to its input.

        Returns:
            (n, h', w', width), half the size after a merging.
        """
        if self.downsample is not None:
            x = self.downsample(x, width)  # (n, h / 2, w / 2, width)
        for block in self.blocks:
            x = run(block, x)
        return x
