"""Parameter groups with layer-wise learning rates, and mixed precision in bfloat16."""

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import Any

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from timm.optim import param_groups_layer_decay
from torch import nn

from ..registry import register
from ..utils.checks import check, check_keys


@register("OPTIM_WRAPPERS")
class AutocastOptimWrapper(OptimWrapper):
    """Runs the model under bfloat16 autocast on its device.

    mmengine's ``AmpOptimWrapper`` needs an accelerator. bfloat16 has the range of float32, so the
    loss is not scaled. Takes the arguments of mmengine's ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Wrap the forward pass of a training step."""
        device_type = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device_type, dtype=torch.bfloat16):
            yield


@register("OPTIM_WRAPPER_CONSTRUCTORS")
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """timm's ``param_groups_layer_decay`` for a model with a timm-like ``backbone``.

    Norms, biases, scalars, tokens, position embeddings and tables have no weight decay. With
    ``paramwise_cfg=dict(layer_decay=0.75)`` a layer's learning rate is 0.75 times that of the one
    above it; embeddings are the lowest layer, and everything outside of the backbone's trunk
    (heads, recycling) has the full rate. Layers, and names without weight decay, come from
    ``backbone.group_matcher()`` and ``backbone.no_weight_decay()``. With
    ``custom_keys=dict(NAME=dict(lr_mult=10.0))``, parameters with NAME in their name have ten times
    the rate.

    Args:
        optim_wrapper_cfg: Has ``lr`` and ``weight_decay`` in its ``optimizer``.
        paramwise_cfg: ``layer_decay`` in (0, 1], by default 1; ``no_weight_decay``, further name
            patterns (``*`` as in file names) of parameters without weight decay; ``custom_keys``,
            of which the longest match applies.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        options: dict[str, Any] = {"layer_decay": 1.0, "no_weight_decay": (), "custom_keys": {}}
        check_keys("paramwise_cfg", paramwise_cfg or {}, options)
        options.update(paramwise_cfg or {})
        for name, changes in options["custom_keys"].items():
            check(list(changes) == ["lr_mult"], f"custom_keys {name}", changes, "dict(lr_mult=...)")
        decay = options["layer_decay"]
        check(0 < decay <= 1, "layer_decay", decay, "in (0, 1]")
        super().__init__(optim_wrapper_cfg, options)

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Add groups of a backbone's parameters, or of those of a model with a ``backbone``."""
        backbone = getattr(module, "backbone", module)
        decay, custom_keys = self.paramwise_cfg["layer_decay"], self.paramwise_cfg["custom_keys"]
        scales: dict[nn.Parameter, float] = {}
        if decay < 1:
            for group in param_groups_layer_decay(backbone, layer_decay=decay):
                scales.update((parameter, group["lr_scale"]) for parameter in group["params"])
        spared = [f"*{name}" for name in backbone.no_weight_decay()]
        spared += self.paramwise_cfg["no_weight_decay"]
        longest_first = sorted(custom_keys, key=len, reverse=True)
        groups: dict[tuple, dict[str, Any]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            key = next((key for key in longest_first if key in name), None)
            scale = scales.get(parameter, 1) * (custom_keys[key]["lr_mult"] if key else 1)
            spare = parameter.ndim <= 1 or any(fnmatch(name, pattern) for pattern in spared)
            group = groups.setdefault((scale, spare), {"params": []})
            group["params"].append(parameter)
            group["lr"] = self.base_lr * scale
            group["weight_decay"] = 0.0 if spare else self.base_wd
        params += groups.values()
