"""Leaves out of a graph the weights that it does not read."""

import copy

import torch
from torch import Tensor, nn

from ..models.layers import NestedLayerNorm, NestedLinear
from .graphs import Graph


@torch.no_grad()
def narrow(graph: Graph, tensors: dict[str, Tensor]) -> Graph:
    """A copy whose nested layers hold just the leading slices that it runs on.

    Files get smaller, and a weight is a constant of the graph that later steps (quantisation,
    layouts) can work on, not a slice to take.

    Args:
        graph: What to copy.
        tensors: Inputs to run it on.
    """
    graph = copy.deepcopy(graph)
    used: dict[nn.Module, tuple[int, int]] = {}

    def note(module: nn.Module, args: tuple, output: Tensor) -> None:
        widths = (args[0].shape[-1], output.shape[-1])
        used[module] = tuple(map(max, widths, used.get(module, widths)))

    nested = [part for part in graph.modules() if isinstance(part, (NestedLinear, NestedLayerNorm))]
    hooks = [part.register_forward_hook(note) for part in nested]
    graph(tensors)
    for hook in hooks:
        hook.remove()
    for part, widths in used.items():
        part.cut(*widths)
    return graph.requires_grad_(False)
