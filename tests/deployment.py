"""Hosts of small models for tests: with PyTorch modules for graphs where files do not matter."""

import numpy as np
import torch
from mmengine.config import Config

from tvit_seg.deploy.graphs import build_graphs
from tvit_seg.deploy.host import ThinkingHost
from tvit_seg.deploy.manifest import describe

CFG = Config(dict(test_dataloader=dict(dataset=dict(type="SceneDataset", pipeline=[]))))


def pictures(count=3, size=(32, 48), seed=0):
    """Noise (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for _ in range(count)]


class ModuleHost(ThinkingHost):
    """The host loop on the modules that graphs are written from."""

    def __init__(self, model, size, any_size=False, stage=None, cfg=CFG):
        images = torch.randn(2, 3, *size)
        self.graphs = build_graphs(model, images, stage, any_size)
        divisor = model.backbone.size_divisor() if any_size else 1
        self.manifest = describe(model, cfg, None if any_size else size, divisor)
        names = [name for name in self.graphs if name != "decode"]
        self.manifest["exit_stages"] = [stage] if stage is not None else list(range(len(names)))
        self.threshold = self.manifest["gate"].get("threshold", 0.0)
        self.stages = [self._run(self.graphs[name]) for name in names]
        self.decode = self._run(self.graphs["decode"]) if "decode" in self.graphs else None
        self.ran = []

    def _run(self, graph):
        @torch.no_grad()
        def run(arrays):
            tensors = {name: torch.from_numpy(arrays[name].copy()) for name in graph.inputs}
            self.ran.append((graph, len(tensors[graph.inputs[0]])))
            return {name: x.numpy() for name, x in graph(tensors).items()}

        return run
