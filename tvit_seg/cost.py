"""Multiply-accumulates and parameters of a thinking model, counted on the operators it runs.

Convention: one multiply-accumulate (MAC) for each product in a matrix multiplication or
convolution, attention's included; biases, norms, activations, softmax and resizing do not count. A
parameter counts, once, if an operator reads it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from .models.gates import Gate, ProbeGate
from .utils.modes import evaluating

_COSTS: WeakKeyDictionary[nn.Module, dict[tuple, Tensor]] = WeakKeyDictionary()


def stage_macs(model: nn.Module, size: Sequence[int]) -> list[float]:
    """Cumulative cost of one image that exits after each thinking stage.

    The model runs without data (on torch's meta device), so everything that it executes is counted:
    for a backbone the stages, for a segmentor the decode head too, as often as its gate needs it.

    Args:
        model: A thinking backbone, segmentor or classifier.
        size: (H, W) of the image in pixels.
    """
    counters = _run(model, size, lambda _: FlopCounterMode(display=False))
    return [counter.get_total_flops() / 2 for counter in counters]


def stage_gmacs(model: nn.Module, size: Sequence[int]) -> Tensor:
    """:func:`stage_macs` in 10^9 as a tensor; computed once for each size and ``cost_key``."""
    size = tuple(_backbone(model).padded_size(size))
    costs = _COSTS.setdefault(model, {})
    key = (size, *_backbone(model).cost_key)
    if key not in costs:
        costs[key] = torch.tensor(stage_macs(model, size), dtype=torch.double) / 1e9
    return costs[key]


def stage_parameters(model: nn.Module, size: Sequence[int]) -> list[int]:
    """Numbers of parameters that are used when an image exits after each thinking stage.

    Arguments are those of :func:`stage_macs`; auxiliary heads, for training only, are left out.
    """
    return [reads.count() for reads in _run(model, size, _ParameterReads)]


def _backbone(model: nn.Module) -> Any:
    return getattr(model, "backbone", model)


def _run(model: nn.Module, size: Sequence[int], watch: Callable[[Iterable[Tensor]], Any]) -> list:
    """Think about one image without data, up to each stage, while a mode watches operators.

    ``watch`` makes a mode from the parameters to be used; the modes are returned.
    """
    proj = _backbone(model).patch_embed.proj
    options = dict(device="meta", dtype=proj.weight.dtype)
    images = torch.empty(1, proj.in_channels, *size, **options)
    modes = []
    with evaluating(model):
        for stage in range(_backbone(model).num_stages):
            runner = _StopAfter(model, ProbeGate(_backbone(model).gate, stage))
            parameters = {name: x.to("meta") for name, x in runner.named_parameters()}
            buffers = {name: x.to("meta") for name, x in runner.named_buffers()}
            modes.append(watch(parameters.values()))
            # some torch versions do not count fused attention; the plain one is products
            with (
                torch.no_grad(),
                torch.compiler.set_stance("force_eager"),
                sdpa_kernel(SDPBackend.MATH),
                modes[-1],
            ):
                functional_call(runner, {**parameters, **buffers}, (images,))
    return modes


class _ParameterReads(TorchDispatchMode):
    """Marks of the elements of parameters that operators read, through any slices."""

    def __init__(self, parameters: Iterable[Tensor]):
        super().__init__()
        self._read = {
            x.untyped_storage()._cdata: torch.zeros(x.numel(), dtype=torch.bool) for x in parameters
        }

    def count(self) -> int:
        return sum(int(read.sum()) for read in self._read.values())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not func.is_view:  # a view reads nothing yet
            for x in tree_leaves((args, kwargs)):
                if isinstance(x, Tensor) and x.untyped_storage()._cdata in self._read:
                    self._mark(x)
        return func(*args, **kwargs)

    def _mark(self, view: Tensor) -> None:
        # along an expanded dimension the same elements are read again
        size = [1 if step == 0 else n for n, step in zip(view.shape, view.stride(), strict=True)]
        read = self._read[view.untyped_storage()._cdata]
        read.as_strided(size, view.stride(), view.storage_offset()).fill_(True)


class _StopAfter(nn.Module):
    """A model as a function of images alone, with a given gate."""

    def __init__(self, model: nn.Module, gate: Gate):
        super().__init__()
        self.model = model
        self.gate = gate

    def forward(self, images: Tensor) -> object:
        return self.model.think(images, self.gate)
