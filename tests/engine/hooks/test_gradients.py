"""Accumulated gradients outlive a restart, in several processes, too."""

from types import SimpleNamespace

import pytest
import torch
from helpers.processes import run_together
from mmengine.optim import OptimWrapper
from torch import nn

from tvit_seg.engine.hooks.gradients import GradientHook

WORKER = """
import sys
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import nn

from tvit_seg.engine import ThinkingRunner, close_distributed, prepare_distributed


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        return {"inputs": torch.full((4,), 0.1 * index)}


class Tiny(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.unused = nn.Linear(1, 1)

    def forward(self, inputs, mode="tensor"):
        return {"loss": self.layer(torch.stack(list(inputs))).square().mean()}


def train(work_dir, load_from=None):
    torch.manual_seed(0)
    cfg = Config(dict(
        work_dir=work_dir, launcher="pytorch", log_level="WARNING", randomness=dict(seed=0),
        resume=load_from is not None, load_from=load_from, experiment_name=work_dir,
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=6),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.1), accumulative_counts=3),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=2, by_epoch=False)),
    ))
    arguments = cfg.to_dict()
    cfg.find_unused_parameters = True
    prepare_distributed(cfg)
    sampler = dict(type="InfiniteSampler", shuffle=True)
    loader = dict(dataset=Numbers(), batch_size=2, sampler=sampler)
    runner = ThinkingRunner(model=Tiny(), train_dataloader=loader, cfg=cfg, **arguments)
    runner.train()
    return runner


folder = sys.argv[1]
whole = train(folder + "/whole")
for step in (2, 4):
    resumed = train(f"{folder}/from{step}", f"{folder}/whole/iter_{step}.pth")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
if dist.get_rank() == 0:
    saved = [torch.load(f"{folder}/whole/iter_{i}.pth", weights_only=True) for i in (2, 4, 6)]
    print("SAVED", [sorted(one.get("accumulated_gradients", ())) for one in saved])
del resumed
close_distributed(whole)
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_in_two_processes(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    out = run_together(2, tmp_path / "worker.py", tmp_path, cwd=tmp_path)
    both = ["layer.bias", "layer.weight"]
    assert f"SAVED [{both}, {both}, []]" in out


def accumulating(count, value=1.0):
    model = nn.Linear(2, 1, bias=False)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1), accumulative_counts=3)
    for _ in range(count):
        wrapper.update_params(model(torch.ones(2)).sum() * value)
    return SimpleNamespace(model=model, optim_wrapper=wrapper)


@pytest.mark.parametrize(
    ("count", "value", "checkpoint", "saved"),
    [
        (2, 1.0, {"optimizer": {}}, True),
        (3, 1.0, {"optimizer": {}}, False),
        (2, 1.0, {}, False),  # the best weights
        (2, float("inf"), {"optimizer": {}}, False),
    ],
)
def test_what_is_saved(count, value, checkpoint, saved):
    runner = accumulating(count, value)
    GradientHook().before_save_checkpoint(runner, checkpoint)
    assert ("accumulated_gradients" in checkpoint) == saved
    if saved:
        gradient = checkpoint["accumulated_gradients"]["weight"]
        torch.testing.assert_close(gradient, torch.full((1, 2), 2 / 3))
