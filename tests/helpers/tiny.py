"""A tiny model, its data and its metric, for trainings of a second."""

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset


class Numbers(Dataset):
    """As many images as asked for, four times the same number each."""

    metainfo = {"classes": ("low", "high"), "palette": [[0, 0, 0], [9, 9, 9]]}

    def __init__(self, count=8, step=1.0):
        self.count, self.step = count, step

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"inputs": torch.full((4,), self.step * index)}


class Tiny(BaseModel):
    """A linear layer, and one that nothing uses."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.unused = nn.Linear(1, 1)

    def forward(self, inputs, mode="tensor"):
        out = self.layer(torch.stack(list(inputs)))
        return {"loss": out.square().mean()} if mode == "loss" else list(out)


class Count(BaseMetric):
    """Counts the images; ``mIoU`` is always 0.5."""

    default_prefix = "test"

    def process(self, data_batch, data_samples):
        self.results += [0] * len(data_samples)

    def compute_metrics(self, results):
        return {"count": len(results), "mIoU": 0.5}
