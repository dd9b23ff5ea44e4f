"""Arguments that backbones share with mmseg's."""

import pytest
from torch import nn

from tvit_seg.models.backbones.arguments import (
    check_drop_path_rate,
    check_fixed,
    check_mlp_ratio,
    check_out_indices,
    check_patch_size,
    norm_layer,
    pretrained_init_cfg,
)
from tvit_seg.models.layers import NestedLayerNorm


def test_fixed_arguments():
    fixed = dict(pad="corner", sizes=(1, 2))
    check_fixed("Net", dict(pad="corner", sizes=[1, 2]), fixed)
    with pytest.raises(ValueError, match=r"pad='same' is not possible .*, only 'corner'"):
        check_fixed("Net", dict(pad="same"), fixed)
    with pytest.raises(TypeError, match="Net has no argument 'depth', 'width'"):
        check_fixed("Net", dict(width=1, depth=2), fixed)


def test_out_indices():
    assert check_out_indices(-1, 4) == (3,)
    assert check_out_indices(range(3), 4) == (0, 1, 2)
    for wrong in ((), 4, (-5, 0)):
        with pytest.raises(ValueError, match="must be below layers=4"):
            check_out_indices(wrong, 4, "layers")


def test_drop_path_rate():
    assert check_drop_path_rate(0.3) == 0.3
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
            check_drop_path_rate(wrong)


def test_mlp_ratio():
    assert check_mlp_ratio(2.6) == 2.6
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"mlp_ratio={wrong} must be > 0"):
            check_mlp_ratio(wrong)


def test_patch_size():
    assert check_patch_size(16) == check_patch_size((16, 16)) == check_patch_size([16]) == 16
    for wrong in (0, -4, 4.0, True, None, (), (4, 8), (0, 0), "16"):
        with pytest.raises(ValueError, match="must be an integer >= 1"):
            check_patch_size(wrong)


def test_pretrained():
    assert pretrained_init_cfg(None, None) is None
    assert pretrained_init_cfg("a.pth", None) == dict(type="Pretrained", checkpoint="a.pth")
    with pytest.raises(ValueError, match="cannot be set at the same time"):
        pretrained_init_cfg("a.pth", dict(type="Pretrained", checkpoint="b.pth"))


def test_norm_layer():
    for kind in ("LN", nn.LayerNorm):
        norm = norm_layer(dict(type=kind, eps=1e-3, requires_grad=True))(8)
        assert isinstance(norm, NestedLayerNorm)
        assert norm.eps == 1e-3
        assert norm.weight.requires_grad and norm.bias.requires_grad
    frozen = norm_layer(dict(type="LN", requires_grad=False))(8, groups=2)
    assert not frozen.weight.requires_grad and not frozen.bias.requires_grad
    with pytest.raises(ValueError, match="must have type='LN'"):
        norm_layer(dict(type="BN"))
