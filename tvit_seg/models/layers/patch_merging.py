"""Patch merging between two levels of any width."""

from timm.models.swin_transformer import PatchMerging
from torch import Tensor
from torch.nn import functional as F

from .nested import NestedLayerNorm, NestedLinear, channels


class NestedPatchMerging(PatchMerging):
    """timm's ``PatchMerging``: four neighbours become one token of the next level.

    Args:
        dim: Full width of the level.
        out_dim: Full width of the next level.
        groups: 4 to slice each of the merged patches on its own, 1 to slice them as one.
        norm: Factory of layer norms.
    """

    def __init__(self, dim: int, out_dim: int, groups: int = 4, norm=NestedLayerNorm):
        super().__init__(dim, out_dim)
        self.norm = norm(4 * dim, groups=groups)
        self.reduction = NestedLinear(4 * dim, out_dim, bias=False, in_groups=groups)

    def forward(self, x: Tensor, out_dim: int) -> Tensor:
        """Merge patches; an odd number of rows or columns is padded with zeros.

        Args:
            x: (B, h, w, d).
            out_dim: Width of the result.

        Returns:
            (B, ceil(h / 2), ceil(w / 2), out_dim).
        """
        height, width = x.shape[1:3]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        # not by unflatten, after which the older ONNX exporter's graphs have one batch size
        x = x.reshape(x.shape[0], (height + 1) // 2, 2, (width + 1) // 2, 2, channels(x))
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)  # (B, h / 2, w / 2, 4 d)
        return self.reduction(self.norm(x), out_dim)
