"""Arguments that backbones share with mmseg's."""

import pytest
from torch import nn

from tvit_seg import ThinkingSwin, ThinkingViT
from tvit_seg.errors import ConfigError
from tvit_seg.models.backbones.arguments import (
    check_fixed,
    check_integers,
    check_loss_weights,
    check_out_indices,
    check_patch_size,
    norm_layer,
    pretrained_init_cfg,
)
from tvit_seg.models.layers import NestedLayerNorm


def test_fixed_arguments():
    fixed = dict(pad="corner", bias=True)
    check_fixed("Net", dict(pad="corner"), fixed)
    with pytest.raises(ConfigError, match=r"pad must be 'corner' .* got 'same'"):
        check_fixed("Net", dict(pad="same"), fixed)
    with pytest.raises(TypeError, match="Net has no argument 'depth'"):
        check_fixed("Net", dict(depth=2), fixed)


def test_integers():
    assert check_integers("depths", [2, 3]) == (2, 3)
    for wrong in ((), 2, "23", (2, 0), (2, 2.5)):
        with pytest.raises(ConfigError, match="depths must be"):
            check_integers("depths", wrong)


def test_out_indices():
    assert check_out_indices(-1, 4) == (3,)
    assert check_out_indices(range(3), 4) == (0, 1, 2)
    for wrong in ((), 4, (-5, 0)):
        with pytest.raises(ConfigError, match="out_indices must be"):
            check_out_indices(wrong, 4)


def test_patch_size():
    assert check_patch_size(16) == check_patch_size((16, 16)) == check_patch_size([16]) == 16
    for wrong in (0, 4.0, True, (), (4, 8)):
        with pytest.raises(ConfigError, match="patch_size must be an integer >= 1"):
            check_patch_size(wrong)


def test_loss_weights():
    assert check_loss_weights(None, 4) == [0.25] * 4
    assert check_loss_weights((1, 3), 2) == [1.0, 3.0]
    for wrong in ([1.0], [1.0, -1.0], [0.0, 0.0], [float("nan"), 1.0], 1):
        with pytest.raises(ConfigError, match="loss_weights must be"):
            check_loss_weights(wrong, 2)


def test_pretrained():
    assert pretrained_init_cfg(None, None) is None
    assert pretrained_init_cfg("a.pth", None) == dict(type="Pretrained", checkpoint="a.pth")
    with pytest.raises(ConfigError, match="init_cfg must be None"):
        pretrained_init_cfg("a.pth", dict(type="Pretrained", checkpoint="b.pth"))


def test_norm_layer():
    for kind in ("LN", nn.LayerNorm):
        norm = norm_layer(dict(type=kind, eps=1e-3, requires_grad=True))(8)
        assert isinstance(norm, NestedLayerNorm)
        assert norm.eps == 1e-3
        assert norm.weight.requires_grad and norm.bias.requires_grad
    frozen = norm_layer(dict(type="LN", requires_grad=False))(8, groups=2)
    assert not frozen.weight.requires_grad and not frozen.bias.requires_grad
    with pytest.raises(ConfigError, match="norm_cfg must be"):
        norm_layer(dict(type="BN"))


@pytest.mark.parametrize("backbone", [ThinkingViT, ThinkingSwin])
@pytest.mark.parametrize("argument", ["pretrained", "init_cfg"])
def test_a_checkpoint_is_a_path(backbone, argument):
    with pytest.raises(ConfigError, match=f"^{argument} must be None"):
        backbone(**{argument: 123})


def test_the_size_of_pretraining_is_checked_though_it_has_no_effect():
    with pytest.raises(ConfigError, match="pretrain_img_size must be an integer >= 1, got -5"):
        ThinkingSwin(pretrain_img_size=-5)
