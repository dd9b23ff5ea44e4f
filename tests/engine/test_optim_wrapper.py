import torch
from mmengine.model import BaseModel
from torch import nn

from tvit_seg.engine import AutocastOptimWrapper
from tvit_seg.registry import OPTIM_WRAPPERS


class Tiny(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, inputs, mode="loss"):
        out = self.layer(inputs)
        self.dtype = out.dtype
        return {"loss": out.float().square().mean()}


def make(**kwargs):
    torch.manual_seed(0)
    model = Tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    cfg = {"type": "AutocastOptimWrapper", "optimizer": optimizer, **kwargs}
    return model, OPTIM_WRAPPERS.build(cfg)


def test_trains_in_bfloat16_and_keeps_float32_weights():
    model, wrapper = make(clip_grad={"max_norm": 1.0})
    assert isinstance(wrapper, AutocastOptimWrapper)
    batch = {"inputs": torch.randn(8, 4)}
    losses = [model.train_step(batch, wrapper)["loss"].item() for _ in range(20)]
    assert model.dtype == torch.bfloat16
    assert model.layer.weight.dtype == torch.float32
    assert losses[-1] < losses[0] / 2


def test_accumulates_gradients():
    model, wrapper = make(accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    before = model.layer.weight.detach().clone()
    batch = {"inputs": torch.randn(8, 4)}
    model.train_step(batch, wrapper)
    assert torch.equal(model.layer.weight, before)
    model.train_step(batch, wrapper)
    assert not torch.equal(model.layer.weight, before)


def test_state_is_restored():
    _, wrapper = make()
    state = wrapper.state_dict()
    _, other = make()
    other.optimizer.param_groups[0]["lr"] = 0.7
    other.load_state_dict(state)
    assert other.get_lr()["lr"] == [0.1]
