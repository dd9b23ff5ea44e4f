"""peft on nested layers: LoRA works at every width, whatever would fail there is refused."""

import pytest
import torch
from helpers.builders import VIT
from helpers.deployment import SWIN
from mmseg.registry import MODELS
from torch import nn

from tvit_seg.errors import ConfigError

IMAGES = torch.randn(2, 3, 32, 32)


@pytest.fixture
def peft():
    return pytest.importorskip("peft", reason="peft is not installed")


def adapted(peft, cfg, **kwargs):
    from tvit_seg.models.layers.lora import nested_lora

    targets = dict(target_modules=["qkv", "fc1", "fc2", "attn.proj", "reduction", "head"])
    config = nested_lora(peft.LoraConfig(r=3, init_lora_weights=False, **targets, **kwargs))
    return peft.get_peft_model(MODELS.build(dict(cfg)).eval(), config)


@pytest.mark.parametrize("cfg", [VIT, SWIN], ids=["vit", "swin"])
def test_a_stage_computes_the_same_beside_and_merged(peft, cfg):
    model = adapted(peft, cfg)
    beside = [output.logits for output in model.forward_stages(IMAGES)]
    with model.disable_adapter():
        without = [output.logits for output in model.forward_stages(IMAGES)]
    merged = [output.logits for output in model.merge_and_unload().forward_stages(IMAGES)]
    for stage in range(2):
        torch.testing.assert_close(beside[stage], merged[stage], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(beside[stage], without[stage], atol=1e-3)


def test_only_the_adapter_learns(peft):
    model = adapted(peft, VIT).train()
    loss = sum(output.logits.square().sum() for output in model.forward_stages(IMAGES))
    loss.backward()
    learns = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learns and all("lora_" in name for name in learns)


@pytest.mark.parametrize("options", [dict(use_dora=True), dict(lora_bias=True)])
def test_variants_are_refused(peft, options):
    with pytest.raises(ConfigError, match=r"LoRA variant|lora_bias"):
        adapted(peft, VIT, **options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LoraConfig", dict(target_modules=["qkv"])),
        ("LoraConfig", dict(target_modules=["patch_embed.proj"])),
        ("LoHaConfig", dict(target_modules=["fc1"])),
        ("IA3Config", dict(target_modules=["fc1"], feedforward_modules=[])),
        ("OFTConfig", dict(target_modules=["fc1"])),
        ("LNTuningConfig", dict(target_modules=["norm1"])),
    ],
)
def test_other_adapters_are_refused_when_created(peft, kind, options):
    with pytest.raises(ConfigError, match="nested_lora"):
        peft.get_peft_model(MODELS.build(dict(VIT)), getattr(peft, kind)(**options))


def test_any_wrapper_of_a_sliced_layer_is_refused():
    wrapper = nn.Module()
    wrapper.base_layer = nn.Linear(4, 4)
    with pytest.raises(ConfigError, match="NestedLayerNorm"):
        wrapper.base_layer = MODELS.build(dict(VIT)).norm
