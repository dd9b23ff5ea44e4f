"""Parameter groups: what decays, and how the learning rate falls towards the input."""

from fnmatch import fnmatch

from mmengine.optim import DefaultOptimWrapperConstructor
from timm.models import group_parameters
from torch import nn

from ..registry import register


@register("OPTIM_WRAPPER_CONSTRUCTORS")
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Weight decay for matrices only, and a learning rate that falls layer by layer.

    Norms, biases, scalars, tokens, position embeddings and tables do not decay. With
    ``paramwise_cfg=dict(layer_decay=0.75)`` a layer's learning rate is 0.75 times that of the one
    above it; embeddings are the lowest layer, whatever is no part of the backbone's trunk (heads,
    recycling) the highest, with the full rate. Layers and what does not decay are the model's own
    say: ``backbone.group_matcher()`` and ``backbone.no_weight_decay()``, as in timm. With
    ``custom_keys=dict(NAME=dict(lr_mult=10.0))``, as in mmengine, parameters with NAME in their
    name learn at ten times the rate.

    Args:
        optim_wrapper_cfg: As in mmengine, with ``lr`` and ``weight_decay`` in its ``optimizer``.
        paramwise_cfg: ``layer_decay`` in (0, 1], by default 1; ``no_weight_decay``, further name
            patterns (``*`` as in file names) of parameters that do not decay; ``custom_keys``, of
            which the longest that fits a name counts.

    Raises:
        ValueError: If ``paramwise_cfg`` has another key, or ``layer_decay`` is out of range.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        known = {"layer_decay": 1.0, "no_weight_decay": (), "custom_keys": {}}
        options = {**known, **(paramwise_cfg or {})}
        if unknown := options.keys() - known.keys():
            raise ValueError(f"paramwise_cfg has {sorted(unknown)}; {', '.join(known)} are known")
        for name, changes in options["custom_keys"].items():
            if list(changes) != ["lr_mult"]:
                raise ValueError(f"custom_keys {name}={changes} must set lr_mult and nothing else")
        if not 0 < options["layer_decay"] <= 1:
            raise ValueError(f"layer_decay={options['layer_decay']} must lie in (0, 1]")
        super().__init__(optim_wrapper_cfg, options)

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Groups the trained parameters of a model.

        Args:
            params: Groups are added to it: ``params``, ``lr``, ``weight_decay``.
            module: A model with a thinking ``backbone``, or such a backbone.
            **kwargs: Not used.
        """
        backbone = getattr(module, "backbone", module)
        prefix = "" if backbone is module else "backbone."
        decay, layers, top = self.paramwise_cfg["layer_decay"], {}, 0
        if decay < 1:
            found = group_parameters(backbone, backbone.group_matcher(), reverse=True)
            layers = {prefix + name: layer for name, layer in found.items()}
            top = max(layers.values())
        spared = [f"*{name}" for name in backbone.no_weight_decay()]
        spared += self.paramwise_cfg["no_weight_decay"]
        keys = self.paramwise_cfg["custom_keys"]
        longest_first = sorted(keys, key=len, reverse=True)
        groups = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            scale = decay ** (top - layers.get(name, top))
            key = next((key for key in longest_first if key in name), None)
            scale *= keys[key]["lr_mult"] if key else 1
            spare = parameter.ndim <= 1 or any(fnmatch(name, pattern) for pattern in spared)
            group = groups.setdefault((scale, spare), {"params": []})
            group["params"].append(parameter)
            group["lr"] = self.base_lr * scale
            group["weight_decay"] = 0.0 if spare else self.base_wd
        params += groups.values()
