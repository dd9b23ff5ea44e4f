"""Published checkpoints hold what inference needs."""

import runpy
import sys
from pathlib import Path

import torch
from helpers.builders import VIT, batch, segmentor

from tvit_seg.weights.io import read_checkpoint

TOOL = Path(__file__).parents[2] / "tools" / "publish_checkpoint.py"


def test_the_teacher_of_token_pruning_stays_behind(tmp_path, monkeypatch):
    backbone = dict(VIT, pruning=dict(type="DynamicPruning", locations=(0, 1)))
    model = segmentor(backbone=backbone).train()
    model.loss(*batch())
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / "trained.pth")
    arguments = [str(tmp_path / name) for name in ("trained.pth", "published.pth")]
    monkeypatch.setattr(sys, "argv", ["publish_checkpoint.py", *arguments])
    runpy.run_path(str(TOOL), run_name="__main__")
    weights = read_checkpoint(tmp_path / "published.pth")["state_dict"]
    assert set(weights) == set(segmentor(backbone=backbone).state_dict())


def test_half_precision(tmp_path, monkeypatch):
    weights = dict(weight=torch.ones(3), count=torch.tensor(2))
    torch.save(dict(state_dict=weights, meta={}), tmp_path / "trained.pth")
    arguments = [str(tmp_path / name) for name in ("trained.pth", "published.pth")]
    monkeypatch.setattr(sys, "argv", ["publish_checkpoint.py", "--half", *arguments])
    runpy.run_path(str(TOOL), run_name="__main__")
    found = read_checkpoint(tmp_path / "published.pth")["state_dict"]
    assert {k: v.dtype for k, v in found.items()} == dict(weight=torch.half, count=torch.int64)
