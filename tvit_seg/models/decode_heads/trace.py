"""Trace of the channels that every layer of a decode head reads when its maps are narrow.

The full head runs once on maps that are 1 in the channels which are there and 0 elsewhere. Each
layer's output is replaced by such an indicator as well, so that the non-zero channels of its input
tell what it reads, however maps were concatenated, pooled or resized in between.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from ...errors import ConfigError
from .narrowing import Runs, cut, leading, rule_of, runs_of

CLASSES = "conv_seg"
"""Names of layers that score classes end so; they are cut in their input alone."""

WIDTHS = ("channels", "inter_channels")
"""Inner widths that mmseg's modules remember beside those of their layers."""


@dataclass
class Plan:
    """A decode head at one stage.

    Attributes:
        widths: Channels of each map that are there.
        cuts: The runs read of each parameter and buffer, by name; of all others, everything.
        attributes: What differs in each layer from the full head's, by name.
        out_widths: Channels that are there in each output.
        full_out: Channels of each output at full width.
        narrow: The plain head of this width, without weights: they are passed in each call.
    """

    widths: tuple[int, ...]
    cuts: dict[str, dict[int, Runs]] = field(default_factory=dict)
    attributes: dict[str, dict[str, object]] = field(default_factory=dict)
    out_widths: tuple[int, ...] = ()
    full_out: tuple[int, ...] = ()
    narrow: nn.Module | None = None

    def read(self, head: nn.Module) -> dict[str, Tensor]:
        """Cut each parameter and buffer of the full head to what the stage reads."""
        tensors = (*head.named_parameters(), *head.named_buffers())
        return {name: cut(x, self.cuts.get(name, {})) for name, x in tensors}


def trace(head: nn.Module, widths: Sequence[int], full: Sequence[int]) -> Plan:
    """Run a plain decode head or neck on indicators, and then at the width found.

    Args:
        head: mmseg's; not changed.
        widths: Channels of each map that are there in the stage.
        full: Channels of each map at full width.

    Raises:
        ConfigError: If the head cannot be cut; the message names the layer.
    """
    plan = Plan(tuple(widths))
    copy = skeleton(head).to_empty(device="cpu").float().eval()
    share = partial(leading, width=widths[-1], full=full[-1])
    _cut_others(copy, plan, share)
    reached = _follow(copy, partial(_observe, plan, share))
    sizes = [2 << level for level in reversed(range(len(full)))]
    maps = [
        _indicator(torch.empty(1, channels, size, size), torch.arange(channels) < width, 1)
        for channels, width, size in zip(full, widths, sizes, strict=True)
    ]
    whole = _run(copy, maps, reached)
    masks = [_mask(out, 1) for out in whole]
    plan.full_out = tuple(len(mask) for mask in masks)
    plan.out_widths = tuple(int(mask.sum()) for mask in masks)
    for mask, width in zip(masks, plan.out_widths, strict=True):
        gives_classes = hasattr(head, "num_classes")
        if not mask[:width].all() or (gives_classes and width < len(mask)):
            raise ConfigError(f"at {reached[-1]}: the channels that come out would be cut")

    plan.narrow = narrow_head(skeleton(head), plan)
    trial = narrow_head(skeleton(head), plan).eval()
    reached = _follow(trial)
    maps = [x[:, :width].contiguous() for x, width in zip(maps, widths, strict=True)]
    thin = _run(partial(functional_call, trial, plan.read(copy)), (maps,), reached)
    for out, wide, width in zip(thin, whole, plan.out_widths, strict=True):
        if out.shape != (1, width, *wide.shape[2:]):
            raise ConfigError(f"at {reached[-1]}: a narrow stage gives {tuple(out.shape)}")
    return plan


def skeleton(head: nn.Module) -> nn.Module:
    """Copy a head without the data of its parameters and buffers."""
    memo = {id(x): nn.Parameter(x.to("meta"), x.requires_grad) for x in head.parameters()}
    return deepcopy(head, memo | {id(x): x.to("meta") for x in head.buffers()})


def narrow_head(head: nn.Module, plan: Plan) -> nn.Module:
    """Give a skeleton's layers the attributes of the stage's width."""
    for name, attributes in plan.attributes.items():
        vars(head.get_submodule(name)).update(attributes)
    return head


def _run(head: Callable, inputs: Sequence, reached: list[str]) -> list[Tensor]:
    """Run a head; errors name the layer that it reached."""
    try:
        with torch.no_grad(), torch.device("cpu"):
            return tree_leaves(head(inputs))
    except Exception as error:
        raise ConfigError(f"at {reached[-1]}: {error}") from error


def _follow(head: nn.Module, observe: Callable | None = None) -> list[str]:
    """Note which layers run.

    Args:
        head: Gets hooks.
        observe: Replaces the output of each layer.

    Returns:
        A list that grows as the head runs; the last name is that of the layer reached.
    """
    reached = ["its input"]
    for name, module in head.named_modules():
        if rule_of(module):
            module.register_forward_pre_hook(lambda *_, name=name: reached.append(name))
            if observe:
                module.register_forward_hook(partial(observe, name), with_kwargs=True)
    return reached


def _observe(
    plan: Plan,
    share: Callable[[int], Tensor],
    name: str,
    layer: nn.Module,
    args: tuple,
    kwargs: dict,
    output: Tensor | tuple,
) -> Tensor | tuple:
    """Note what a layer reads, and return an indicator in place of its output."""
    rule, dim = rule_of(layer)  # type: ignore[misc]  # a layer without one is not observed
    values, *others = output if isinstance(output, tuple) else (output,)
    channels = values.shape[dim]
    free = torch.ones(channels, dtype=torch.bool) if name.endswith(CLASSES) else share(channels)
    found = rule(_mask((*args, *kwargs.values())[0], dim), free)
    cuts = {f"{name}.{parameter}": runs for parameter, runs in found.cuts.items()}
    if any(plan.cuts.get(parameter, runs) != runs for parameter, runs in cuts.items()):
        raise ConfigError("it runs several times, on different channels")
    plan.cuts |= cuts
    plan.attributes[name] = found.attributes
    values = _indicator(values, found.out, dim)
    return (values, *others) if isinstance(output, tuple) else values


def _cut_others(head: nn.Module, plan: Plan, share: Callable[[int], Tensor]) -> None:
    """Cut what belongs to no layer: widths, and parameters such as class embeddings.

    These are cut in their last dimension and become indicators.
    """
    for prefix, module in head.named_modules():
        if rule_of(module):
            continue
        widths = {name: getattr(module, name, None) for name in WIDTHS}
        plan.attributes[prefix] = {
            name: int(share(width).sum())
            for name, width in widths.items()
            if isinstance(width, int)
        }
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.ndim > 3:
                raise ConfigError(f"at {name}: there is no rule for {type(module).__name__}")
            if parameter.ndim:
                mask = share(parameter.shape[-1])
                parameter.data = _indicator(parameter.data, mask, -1)
                plan.cuts[name] = {parameter.ndim - 1: runs_of(mask)}


def _mask(x: Tensor, dim: int) -> Tensor:
    """Read from an indicator which channels are there."""
    return x.movedim(dim, 0).flatten(1).ne(0).any(1)


def _indicator(like: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Make a tensor of the same shape that is 1 in the channels that are there, else 0."""
    return torch.zeros_like(like).movedim(dim, -1).add_(mask).movedim(-1, dim)
