"""Published checkpoints hold what inference needs."""

import runpy
import sys
from pathlib import Path

import numpy as np
import torch
from helpers.builders import VIT, batch, segmentor

import tvit_seg
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


def test_a_folder_for_the_hub(tmp_path, monkeypatch):
    root = TOOL.parents[1]
    (tmp_path / "sweep.csv").write_text("threshold,mIoU\n0.5,38.9\n")
    arguments = [
        *(str(root / "checkpoints/quickstart.pth"), str(tmp_path / "hub")),
        *("--config", str(root / "configs/quickstart/thinkingvit_scenes-96x96.py")),
        *("--license", "apache-2.0", "--data", "scenes", "--results", str(tmp_path / "sweep.csv")),
    ]
    monkeypatch.setattr(sys, "argv", ["publish_checkpoint.py", *arguments])
    runpy.run_path(str(TOOL), run_name="__main__")
    model = tvit_seg.from_pretrained(tmp_path / "hub")
    published = read_checkpoint(root / "checkpoints/quickstart.pth")["state_dict"]
    assert all(torch.equal(value, published[key]) for key, value in model.state_dict().items())
    predictor = tvit_seg.Predictor.from_pretrained(tmp_path / "hub")
    assert len(predictor.dataset_meta["classes"]) == 7
    images = [np.full((96, 96, 3), grey, np.uint8) for grey in (0, 128)]
    results = predictor([*images, np.zeros((64, 80, 3), np.uint8)])
    assert results[2].pred_sem_seg.shape == (64, 80)
    for image, result in zip(images, results, strict=False):
        assert torch.equal(predictor(image).pred_sem_seg.data, result.pred_sem_seg.data)
    assert "| 0.5 | 38.9 |" in (tmp_path / "hub/README.md").read_text()


def test_half_precision(tmp_path, monkeypatch):
    weights = dict(weight=torch.ones(3), count=torch.tensor(2))
    torch.save(dict(state_dict=weights, meta={}), tmp_path / "trained.pth")
    arguments = [str(tmp_path / name) for name in ("trained.pth", "published.pth")]
    monkeypatch.setattr(sys, "argv", ["publish_checkpoint.py", "--half", *arguments])
    runpy.run_path(str(TOOL), run_name="__main__")
    found = read_checkpoint(tmp_path / "published.pth")["state_dict"]
    assert {k: v.dtype for k, v in found.items()} == dict(weight=torch.half, count=torch.int64)
