"""Multiply-accumulates of a thinking model, counted operator by operator on the model itself.

Convention: one multiply-accumulate (MAC) for each product in a matrix multiplication or
convolution, attention's included; biases, norms, activations, softmax and resizing do not count.
"""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .gates import Gate, ProbeGate


def stage_macs(model: nn.Module, size: Sequence[int]) -> list[float]:
    """Cumulative cost of one image that stops after each thinking stage.

    The model runs for real, without data (on torch's meta device), so whatever it executes is
    counted: for a backbone the stages, for a segmentor the decode head too, as often as its gate
    has it run.

    Args:
        model: A thinking backbone, segmentor or classifier.
        size: (H, W) of the image in pixels.

    Returns:
        MACs when stopping after each stage, increasing.
    """
    backbone = getattr(model, "backbone", model)
    in_channels = backbone.patch_embed.proj.in_channels
    images = torch.empty(1, in_channels, *size, device="meta")
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        return [_count(model, images, stage) for stage in range(backbone.num_stages)]
    finally:
        for module, mode in modes.items():
            module.training = mode


def _count(model: nn.Module, images: Tensor, stage: int) -> float:
    gate = getattr(model, "backbone", model).gate
    runner = _StopAfter(model, ProbeGate(gate, stage))
    tensors = chain(runner.named_parameters(), runner.named_buffers())
    weights = {name: x.to("meta") for name, x in tensors}
    # fused attention is missing from some versions' tables; the plain one is products alone
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        functional_call(runner, weights, (images,))
    return counter.get_total_flops() / 2


class _StopAfter(nn.Module):
    """A model as a function of images alone, with a given gate."""

    def __init__(self, model: nn.Module, gate: Gate):
        super().__init__()
        self.model = model
        self.gate = gate

    def forward(self, images: Tensor) -> object:
        return self.model.think(images, self.gate)
