"""What backbones accept of mmseg's arguments, checked before work starts."""

from collections.abc import Callable, Sequence
from numbers import Integral

from torch import nn

from ..layers import NestedLayerNorm


def check_fixed(name: str, given: dict, fixed: dict) -> None:
    """Accepts arguments that nested stages allow a single value of.

    Args:
        name: Of the backbone, for the message.
        given: The arguments.
        fixed: All such arguments with their value.

    Raises:
        TypeError: If an argument is unknown.
        ValueError: If it has another value.
    """
    unknown = sorted(given.keys() - fixed.keys())
    if unknown:
        raise TypeError(f"{name} has no argument {', '.join(map(repr, unknown))}")
    for argument, value in given.items():
        value = tuple(value) if isinstance(value, list) else value
        if value != fixed[argument]:
            raise ValueError(
                f"{argument}={value!r} is not possible with thinking stages, "
                f"only {fixed[argument]!r}"
            )


def check_out_indices(
    out_indices: int | Sequence[int], count: int, name: str = "num_layers"
) -> tuple[int, ...]:
    """Returns indices from 0, or raises ValueError if there is none or one is out of range.

    Args:
        out_indices: One or several; -1 is the last.
        count: How many there are to choose from.
        name: What they are the number of, for the message.
    """
    given = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
    indices = tuple(i + count if i < 0 else i for i in given)
    if not indices or not all(0 <= i < count for i in indices):
        raise ValueError(f"out_indices={out_indices} must be below {name}={count}")
    return indices


def check_drop_path_rate(rate: float) -> float:
    """Returns the rate, or raises ValueError if it is outside [0, 1)."""
    if not 0 <= rate < 1:
        raise ValueError(f"drop_path_rate={rate} must lie in [0, 1)")
    return rate


def check_mlp_ratio(ratio: float) -> float:
    """Returns the hidden width of perceptrons over their width, or raises ValueError unless > 0."""
    if not 0 < ratio < float("inf"):
        raise ValueError(f"mlp_ratio={ratio} must be > 0")
    return ratio


def check_patch_size(patch_size: int | Sequence[int]) -> int:
    """Returns the side of square patches in pixels; ValueError if they are not square."""
    sides = set(patch_size) if isinstance(patch_size, Sequence) else {patch_size}
    side = sides.pop() if len(sides) == 1 else None
    if not isinstance(side, Integral) or isinstance(side, bool) or side < 1:
        raise ValueError(f"patch_size={patch_size!r} must be an integer >= 1 (square patches)")
    return int(side)


def pretrained_init_cfg(pretrained: str | None, init_cfg: dict | list | None) -> dict | list | None:
    """The ``init_cfg`` that mmseg's deprecated ``pretrained`` stands for."""
    if pretrained is None:
        return init_cfg
    if init_cfg is not None:
        raise ValueError("init_cfg and pretrained cannot be set at the same time")
    return dict(type="Pretrained", checkpoint=pretrained)


def norm_layer(norm_cfg: dict) -> Callable[..., NestedLayerNorm]:
    """What makes layer norms as a ``norm_cfg`` asks for, or ValueError if it asks for others."""
    options = dict(norm_cfg)
    if options.pop("type") not in ("LN", nn.LayerNorm):
        raise ValueError(f"norm_cfg={norm_cfg} must have type='LN', the norm that nests")
    trained = options.pop("requires_grad", True)

    def build(width: int, **kwargs) -> NestedLayerNorm:
        return NestedLayerNorm(width, **options, **kwargs).requires_grad_(trained)

    return build
