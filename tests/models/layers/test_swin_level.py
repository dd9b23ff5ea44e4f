"""A level of Swin: at full width timm's, at others one of that width."""

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock

from tvit_seg.models.layers import NestedLayerNorm, NestedPatchMerging, SwinBlock, SwinLevel


def block(**kwargs):
    options = dict(
        dim=16, num_heads=4, mlp_ratio=4, drop=0.0, drop_path=0.0, act_cfg=dict(type="GELU"),
        norm=NestedLayerNorm, qkv_bias=True, window_size=4,
    )  # fmt: skip
    return SwinBlock(**{**options, **kwargs})


@pytest.mark.parametrize("shifted", [False, True])
@torch.no_grad()
def test_block_equals_timm(shifted):
    ours, x = block(shifted=shifted), torch.randn(2, 8, 12, 16)
    shift = 2 if shifted else 0
    theirs = SwinTransformerBlock(16, (8, 12), num_heads=4, window_size=4, shift_size=shift)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))


def test_level_merges_to_the_width_wanted_and_runs_all_blocks():
    level = SwinLevel([block(), block(shifted=True)], NestedPatchMerging(8, 16))
    ran = []

    def run(part, x):
        ran.append(part)
        return part(x)

    assert level(torch.randn(2, 7, 8, 8), 12, run).shape == (2, 4, 4, 12)
    assert ran == list(level.blocks)
