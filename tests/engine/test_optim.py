"""Weight decay and learning rate of each parameter, and training in bfloat16."""

import pytest
import torch
from helpers.builders import classifier, segmentor
from mmengine.model import BaseModel
from torch import nn

from tvit_seg import ThinkingSwin
from tvit_seg.engine import AutocastOptimWrapper, LayerDecayOptimWrapperConstructor
from tvit_seg.errors import ConfigError
from tvit_seg.registry import OPTIM_WRAPPERS


def groups(model, paramwise_cfg=None):
    """(learning rate, weight decay) of each trained parameter by name."""
    cfg = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.05))
    wrapper = LayerDecayOptimWrapperConstructor(cfg, paramwise_cfg)(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for parameter in group["params"]
    }


def test_matrices_decay_and_nothing_else():
    model = classifier()
    found = groups(model)
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert {lr for lr, _ in found.values()} == {1.0}
    decaying = {name for name, (_, decay) in found.items() if decay}
    assert "backbone.blocks.0.attn.qkv.weight" in decaying
    assert "backbone.patch_embed.proj.weight" in decaying
    assert "backbone.recycle.0.proj.weight" in decaying
    spared = set(found) - decaying
    assert {name for name in spared if name.endswith(("weight", "embed", "token", "scale"))} == {
        "backbone.cls_token",
        "backbone.pos_embed",
        "backbone.recycle.0.scale",
        "backbone.norm.weight",
        *(f"backbone.blocks.{i}.norm{k}.weight" for i in (0, 1) for k in (1, 2)),
    }
    assert all(name in spared for name in found if name.endswith("bias"))


def test_layer_decay():
    found = groups(classifier(), dict(layer_decay=0.5))
    expected = {
        "backbone.cls_token": 1 / 8,
        "backbone.patch_embed.proj.weight": 1 / 8,
        "backbone.blocks.0.norm1.bias": 1 / 4,
        "backbone.blocks.1.mlp.fc1.weight": 1 / 2,
        "backbone.norm.weight": 1 / 2,  # goes with the last block, as in timm
        "backbone.head.weight": 1,
        "backbone.recycle.0.proj.weight": 1,
    }
    for name, rate in expected.items():
        assert found[name][0] == rate, name


def test_rates_of_one_part():
    keys = {"blocks": dict(lr_mult=3.0), "blocks.1.mlp": dict(lr_mult=5.0)}
    found = groups(classifier(), dict(layer_decay=0.5, custom_keys=keys))
    assert found["backbone.blocks.1.attn.qkv.weight"] == (1.5, 0.05)
    assert found["backbone.blocks.1.mlp.fc1.bias"] == (2.5, 0.0)
    assert found["backbone.head.weight"] == (1.0, 0.05)


def test_a_segmentor_and_frozen_parameters():
    model = segmentor()
    found = groups(model, dict(layer_decay=0.5, no_weight_decay=["*conv_seg.weight"]))
    assert found["decode_head.conv_seg.weight"] == (1.0, 0.0)
    assert "backbone.head.weight" not in found  # nothing trains it


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (dict(layer_decay=1.1), r"layer_decay must be in \(0, 1\]"),
        (dict(layer_decai=0.9), "'layer_decai'; did you mean 'layer_decay'"),
        (dict(custom_keys=dict(head=dict(decay_mult=0))), "custom_keys head must be"),
    ],
)
def test_bad_options(cfg, message):
    with pytest.raises(ConfigError, match=message):
        groups(classifier(), cfg)


def test_layers_of_a_pyramid():
    """A merging goes with the first block after it, as in timm."""
    swin = ThinkingSwin(
        embed_dims=16, num_heads=(2, 4), depths=(1, 2), thinking_stages=((1, 2), (2, 4))
    )
    found = groups(swin, dict(layer_decay=0.5))
    expected = {
        "patch_embed.proj.weight": 1 / 16,
        "layers.0.blocks.0.attn.qkv.weight": 1 / 8,
        "layers.1.downsample.reduction.weight": 1 / 4,
        "layers.1.blocks.0.attn.qkv.weight": 1 / 4,
        "layers.1.blocks.1.attn.qkv.weight": 1 / 2,
        "norm.weight": 1 / 2,
        "recycle.0.proj.weight": 1,
    }
    assert {name: found[name][0] for name in expected} == expected
    assert found["layers.0.blocks.0.attn.relative_position_bias_table"][1] == 0


class Tiny(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, inputs, mode="loss"):
        out = self.layer(inputs)
        self.dtype = out.dtype
        return {"loss": out.float().square().mean()}


def autocast(**kwargs):
    torch.manual_seed(0)
    model = Tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    cfg = {"type": "AutocastOptimWrapper", "optimizer": optimizer, **kwargs}
    return model, OPTIM_WRAPPERS.build(cfg)


def test_trains_in_bfloat16_and_keeps_float32_weights():
    model, wrapper = autocast(clip_grad={"max_norm": 1.0})
    assert isinstance(wrapper, AutocastOptimWrapper)
    batch = {"inputs": torch.randn(8, 4)}
    losses = [model.train_step(batch, wrapper)["loss"].item() for _ in range(20)]
    assert model.dtype == torch.bfloat16
    assert model.layer.weight.dtype == torch.float32
    assert losses[-1] < losses[0] / 2
