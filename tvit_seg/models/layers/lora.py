"""LoRA (https://arxiv.org/abs/2106.09685) on nested layers, through peft.

The only module that needs peft; import it where it is used.
"""

from peft import LoraConfig
from peft.tuners import lora
from torch import Tensor
from torch.nn import functional as F

from ...utils.checks import check
from .nested import NestedLinear, Sliced, leading


def nested_lora(config: LoraConfig) -> LoraConfig:
    """Let a config of peft adapt nested layers; pass the result to ``get_peft_model``.

    Variants with other arithmetic, such as DoRA, are refused when the adapter is created.
    """
    check(isinstance(config, LoraConfig), "config", type(config).__name__, "peft's LoraConfig")
    config._register_custom_module({NestedLinear: NestedLoraLinear})
    return config


class NestedLoraLinear(Sliced, lora.Linear):
    """peft's LoRA layer on a :class:`NestedLinear`, whose low-rank product is sliced like it.

    A stage computes the same with the adapter beside the layer as with it merged.
    """

    def update_layer(self, adapter_name: str, *args, **kwargs) -> None:
        """Add an adapter; arguments are peft's."""
        super().update_layer(adapter_name, *args, **kwargs)
        variant = self.lora_variant.get(adapter_name)
        check(variant is None, "LoRA variant", type(variant).__name__, "left out for nested layers")
        check(self.lora_B[adapter_name].bias is None, "lora_bias", True, "False for nested layers")

    def forward(self, x: Tensor, out_features: int | None = None) -> Tensor:
        """Apply layer and active adapters; arguments are those of the layer."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x, out_features)
        if self.disable_adapters or self.merged:
            return result
        base = self.get_base_layer()
        for name in self.active_adapters:
            if name not in self.lora_A:
                continue
            down, up = self.lora_A[name].weight, self.lora_B[name].weight
            down = leading(down, x.shape[-1], dim=1, groups=base.in_groups)
            up = leading(up, result.shape[-1], groups=base.groups)
            hidden = F.linear(self.lora_dropout[name](x.to(down.dtype)), down)  # (..., r)
            result = result + (F.linear(hidden, up) * self.scaling[name]).to(result.dtype)
        return result
