"""Layers of a few parameters that work on any leading slice of their channels."""

import torch
import torch.nn.functional as F
from timm.layers import LayerScale
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from ...errors import CheckpointError, ConfigError


def channels(x: Tensor) -> int:
    """Width of (..., d) as a constant: shapes are tensors while ``torch.jit`` traces."""
    return int(x.shape[-1])


def leading(x: Tensor, size: int, dim: int = 0, groups: int = 1) -> Tensor:
    """Take the leading slice of a weight, or of each of several equal groups that form it.

    Args:
        size: Length of the result along ``dim``.
        dim: The dimension to cut.
        groups: Number of equal groups along ``dim``, each sliced on its own.
    """
    if size == x.shape[dim]:
        return x
    if groups == 1:
        return x.narrow(dim, 0, size)
    return x.unflatten(dim, (groups, -1)).narrow(dim + 1, 0, size // groups).flatten(dim, dim + 1)


class Sliced:
    """Mark of layers that act with a slice of their weights, chosen by the input or the caller."""


def _refuse_adapters(wrapper: nn.Module, name: str, layer: nn.Module | None) -> None:
    """Refuse a wrapper that puts weights of its own, of full width only, beside a sliced layer."""
    if name == "base_layer" and isinstance(layer, Sliced) and not isinstance(wrapper, Sliced):
        kind = type(wrapper)
        raise ConfigError(
            f"{kind.__module__}.{kind.__name__} cannot adapt a {type(layer).__name__}, which runs "
            "at several widths: of peft's adapters only LoRA does, on NestedLinear, with "
            "tvit_seg.models.layers.lora.nested_lora(LoraConfig(...))"
        )


# peft registers the layer that an adapter wraps as ``base_layer``
register_module_module_registration_hook(_refuse_adapters)


class NestedLinear(Sliced, nn.Linear):
    """``nn.Linear`` whose leading slice acts on inputs narrower than ``in_features``.

    Args:
        in_features: Full input width.
        out_features: Full output width.
        bias: Adds a bias.
        groups: Number of equal groups of output rows, each sliced on its own (3 for a joint
            query-key-value projection, whose rows are all of q, then all of k, then all of v).
        in_groups: Number of equal groups of input columns (4 where four patches are merged).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        groups: int = 1,
        in_groups: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.groups = groups
        self.in_groups = in_groups
        self._ratio = out_features, in_features

    @property
    def weight_groups(self) -> tuple[int, int]:
        """Groups of rows and of columns, for fitting weights to this layer."""
        return self.groups, self.in_groups

    def forward(self, x: Tensor, out_features: int | None = None) -> Tensor:
        """Apply the slice that fits the input.

        Args:
            x: (..., d) with d <= ``in_features``.
            out_features: Output width; by default it shrinks in proportion to the input, rounded
                down in each group of rows.
        """
        width = channels(x)
        if out_features is None:
            rows, columns = self._ratio
            out_features = width * (rows // self.groups) // columns * self.groups
        return F.linear(x, *self.slices(width, out_features))

    def cut(self, width: int, out_features: int) -> None:
        """Drop, in place, what inputs of at most ``width`` channels do not read."""
        weight, bias = self.slices(width, out_features)
        self.weight = nn.Parameter(weight.detach().clone())
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().clone())
        self.in_features, self.out_features = width, out_features

    def slices(self, width: int, out_features: int) -> tuple[Tensor, Tensor | None]:
        """Weight (out_features, width) and bias (out_features,) or None."""
        weight = leading(self.weight, width, dim=1, groups=self.in_groups)
        weight = leading(weight, out_features, groups=self.groups)
        bias = self.bias
        if bias is not None:
            bias = leading(bias, out_features, groups=self.groups)
        return weight, bias


class KeyMaskedLinear(NestedLinear):
    """Query-key-value projection of :class:`NestedLinear` without a bias of the keys.

    As in BEiT, EVA and DINOv3. The rows of the bias that belong to keys exist but are 0.
    """

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        bias = state_dict.get(f"{prefix}bias")
        if bias is not None and bias.chunk(3)[1].any():
            raise CheckpointError(f"{prefix}bias has values for keys: set k_bias=True")
        super()._load_from_state_dict(state_dict, prefix, *args)

    def slices(self, width: int, out_features: int) -> tuple[Tensor, Tensor | None]:
        weight, bias = super().slices(width, out_features)
        if bias is not None:
            q, k, v = bias.chunk(3)
            bias = torch.cat((q, torch.zeros_like(k), v))
        return weight, bias


class NestedLayerNorm(Sliced, nn.LayerNorm):
    """``nn.LayerNorm`` over the channels of the input, with the leading slice of its weights.

    Args:
        normalized_shape: Full width.
        groups: Number of equal groups of channels, each sliced on its own.
        **kwargs: Further arguments of ``nn.LayerNorm``.
    """

    def __init__(self, normalized_shape: int, groups: int = 1, **kwargs):
        super().__init__(normalized_shape, **kwargs)
        self.groups = groups

    @property
    def weight_groups(self) -> tuple[int, int]:
        """Groups of channels, for fitting weights to this layer."""
        return self.groups, 1

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., d) over its d channels."""
        width = channels(x)
        weight, bias = self._slices(width)
        return F.layer_norm(x, (width,), weight, bias, self.eps)

    def cut(self, width: int, *_: int) -> None:
        """Drop, in place, what inputs of at most ``width`` channels do not read."""
        parts = zip(("weight", "bias"), self._slices(width), strict=True)
        for name, part in [(name, part) for name, part in parts if part is not None]:
            setattr(self, name, nn.Parameter(part.detach().clone()))
        self.normalized_shape = (width,)

    def _slices(self, width: int) -> list[Tensor | None]:
        return [
            None if part is None else leading(part, width, groups=self.groups)
            for part in (self.weight, self.bias)
        ]


class NestedLayerScale(LayerScale):
    """timm's ``LayerScale`` with the leading slice of its factors."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply each of the d channels of (..., d) by its factor."""
        return x * leading(self.gamma, x.shape[-1])
