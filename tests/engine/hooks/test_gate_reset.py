"""Two validations in a row find the same."""

from types import SimpleNamespace

import torch
from helpers.builders import segmentor

from tvit_seg import BudgetGate, EntropyGate
from tvit_seg.engine.hooks.gate_reset import GateResetHook


@torch.no_grad()
def test_gates_start_anew():
    model = segmentor(BudgetGate(EntropyGate(1.0), 0.3))
    images = torch.randn(30, 3, 32, 32)
    hook, runner = GateResetHook(), SimpleNamespace(model=model)
    found = []
    for before in (hook.before_val, hook.before_val, hook.before_test):
        before(runner)
        found.append(model.think(images).exit_stage)
    again = model.think(images).exit_stage
    assert torch.equal(found[0], found[1]) and torch.equal(found[1], found[2])
    assert not torch.equal(again, found[0])  # it does remember
