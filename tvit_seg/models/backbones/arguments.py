"""Checks of the arguments that our backbones share with mmseg's."""

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from ...utils.checks import check, check_index, check_integer, check_number
from ..layers import NestedLayerNorm


def check_fixed(name: str, given: dict, fixed: dict) -> None:
    """Accept arguments of mmseg's backbones for which nested stages allow a single value.

    Args:
        name: Of the backbone, for the message.
        fixed: All such arguments with their value.

    Raises:
        TypeError: If an argument is unknown.
        ConfigError: If it has another value.
    """
    for argument, value in given.items():
        if argument not in fixed:
            raise TypeError(f"{name} has no argument {argument!r}")
        allowed = f"{fixed[argument]!r} with thinking stages"
        check(value == fixed[argument], argument, value, allowed)


def check_integers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    """Return at least one integer, each >= 1."""
    fits = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
    check(fits, name, values, "a list of integers")
    return tuple(check_integer(name, value) for value in values)


def check_out_indices(out_indices: int | Sequence[int], count: int) -> tuple[int, ...]:
    """Return non-negative indices, of one or several out of ``count``; -1 is the last."""
    given = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
    check(bool(given), "out_indices", out_indices, "one or more")
    return tuple(check_index("out_indices", index, count) for index in given)


def check_rates(mlp_ratio: float, drop_path_rate: float) -> None:
    """Raise ConfigError unless the first is above 0 and the second in [0, 1)."""
    check(check_number("mlp_ratio", mlp_ratio) > 0, "mlp_ratio", mlp_ratio, "> 0")
    fits = check_number("drop_path_rate", drop_path_rate) < 1
    check(fits, "drop_path_rate", drop_path_rate, "in [0, 1)")


def check_patch_size(patch_size: int | Sequence[int]) -> int:
    """Return the side of square patches in pixels."""
    sides = set(patch_size) if isinstance(patch_size, Sequence) else {patch_size}
    check(len(sides) == 1, "patch_size", patch_size, "an integer >= 1 (square patches)")
    return check_integer("patch_size", *sides)


def pretrained_init_cfg(pretrained: str | None, init_cfg: dict | list | None) -> dict | list | None:
    """``init_cfg``, or its equivalent for mmseg's deprecated ``pretrained``."""
    several = init_cfg if isinstance(init_cfg, list) else [init_cfg]
    fits = init_cfg is None or all(isinstance(cfg, Mapping) for cfg in several)
    check(fits, "init_cfg", init_cfg, "None, dict(type='Pretrained', checkpoint=PATH), or a list")
    if pretrained is None:
        return init_cfg
    check(isinstance(pretrained, str), "pretrained", pretrained, "None or a path")
    check(init_cfg is None, "init_cfg", init_cfg, "None where pretrained is set")
    return dict(type="Pretrained", checkpoint=pretrained)


def check_loss_weights(weights: Sequence[float] | None, num_stages: int) -> list[float]:
    """Return one loss weight for each stage; by default equal ones with sum 1."""
    if weights is None:
        return [1 / num_stages] * num_stages
    fits = isinstance(weights, Sequence) and len(weights) == num_stages
    check(fits, "loss_weights", weights, f"a list of {num_stages}, one for each thinking stage")
    numbers = [check_number("loss_weights", weight) for weight in weights]
    check(any(numbers), "loss_weights", weights, "not all 0")
    return numbers


def norm_layer(norm_cfg: dict) -> Callable[..., NestedLayerNorm]:
    """Factory of layer norms for a ``norm_cfg``."""
    options = dict(norm_cfg)
    check(options.pop("type") in ("LN", nn.LayerNorm), "norm_cfg", norm_cfg, "of type='LN'")
    trained = options.pop("requires_grad", True)

    def build(width: int, **kwargs) -> NestedLayerNorm:
        return NestedLayerNorm(width, **options, **kwargs).requires_grad_(trained)

    return build
