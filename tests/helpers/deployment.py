"""Hosts of small models for tests: with PyTorch modules for graphs where files do not matter."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from helpers.builders import lively
from mmengine.config import Config

from tvit_seg import ThinkingEncoderDecoder
from tvit_seg.deploy.graphs import build_graphs
from tvit_seg.deploy.host import ThinkingHost
from tvit_seg.deploy.manifest import describe, fix_size
from tvit_seg.utils.versions import ONNX, unfit

GATE = dict(type="EntropyGate", threshold=1.0)
SMALL = dict(num_layers=1)
SWIN = dict(
    type="ThinkingSwin",
    embed_dims=8,
    depths=(2, 2),
    thinking_stages=((1, 1), (1, 2)),
    window_size=4,
    num_classes=5,
    drop_path_rate=0.0,
)
PRUNING = dict(type="DynamicPruning", locations=(0, 1), keep_ratio=0.7)
TOKENS = dict(type="UncertaintyPruning", keep_ratio=0.4)
FCN = dict(
    type="FCNHead", num_convs=1, concat_input=False, in_channels=16, channels=8, in_index=1,
    num_classes=5, dropout_ratio=0, norm_cfg=dict(type="BN"),
)  # fmt: skip

CFG = Config(dict(test_dataloader=dict(dataset=dict(type="SceneDataset", pipeline=[]))))

needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")) or unfit(ONNX),
    reason="onnx, onnxscript, onnxruntime are not installed, or torch is too old for them",
)


def swin(gate=GATE, head=FCN):
    return lively(ThinkingEncoderDecoder(backbone=dict(SWIN, gate=gate), decode_head=head))


def noise(count=3, size=(32, 48), seed=0):
    """Images (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for _ in range(count)]


class ModuleHost(ThinkingHost):
    """The host loop on the modules that graphs are written from."""

    def __init__(self, model, size, any_size=False, stage=None, cfg=CFG):
        images = torch.randn(2, 3, *size)
        self.graphs = build_graphs(model, images, stage, any_size)
        self.manifest = describe(model, cfg, model.backbone.size_divisor() if any_size else 1)
        if not any_size:
            fix_size(self.manifest, size)
        names = [name for name in self.graphs if not name.startswith("decode")]
        decode = [name for name in self.graphs if name not in names] or [None]
        self.manifest["exit_stages"] = [stage] if stage is not None else list(range(len(names)))
        self.threshold = self.manifest["gate"].get("threshold", 0.0)
        self.opened = {name: self._run(graph) for name, graph in self.graphs.items()}
        self.stages = [self.opened[name] for name in names]
        each = decode if len(decode) > 1 else decode * len(names)
        self.decode = [self.opened.get(name) for name in each]
        self.ran = []

    def runs(self):
        """The graphs by name, as functions of arrays."""
        return dict(self.opened)

    def _run(self, graph):
        @torch.no_grad()
        def run(arrays):
            tensors = {name: torch.from_numpy(arrays[name].copy()) for name in graph.inputs}
            self.ran.append((graph, len(tensors[graph.inputs[0]])))
            return {name: x.numpy() for name, x in graph(tensors).items()}

        return run
