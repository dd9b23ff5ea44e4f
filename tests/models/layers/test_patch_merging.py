"""Patch merging: at full width timm's, below it timm's of the slice."""

import pytest
import torch
from timm.models.swin_transformer import PatchMerging

from tvit_seg.models.layers import NestedPatchMerging


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("size", [(4, 6), (3, 5), (1, 2)])
@torch.no_grad()
def test_full_width_equals_timm(groups, size):
    layer, x = NestedPatchMerging(8, 16, groups), torch.randn(2, *size, 8)
    theirs = PatchMerging(8, 16)
    theirs.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x, 16), theirs(x))


@pytest.mark.parametrize("groups", [1, 4])
@torch.no_grad()
def test_slices_each_merged_patch_or_all_as_one(groups):
    layer, x = NestedPatchMerging(4, 8, groups), torch.randn(2, 4, 4, 3)
    layer.norm.weight.normal_()
    columns = [c for c in range(16) if c % 4 < 3] if groups == 4 else list(range(12))
    narrow = PatchMerging(3, 5)
    narrow.load_state_dict(
        {
            "norm.weight": layer.norm.weight[columns],
            "norm.bias": layer.norm.bias[columns],
            "reduction.weight": layer.reduction.weight[:5, columns],
        }
    )
    torch.testing.assert_close(layer(x, 5), narrow(x))
