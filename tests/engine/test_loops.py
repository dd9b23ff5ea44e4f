"""Raw and averaged weights are validated side by side."""

import pytest
import torch
from helpers.classification import config, image_folder

from tvit_seg.engine import ThinkingRunner

pytestmark = pytest.mark.integration


def run(tmp_path, **changes):
    root = image_folder(tmp_path / "images")
    runner = ThinkingRunner.from_cfg(config(root, tmp_path, **changes))
    found = []
    runner.call_hook, call = (
        lambda name, **kwargs: (
            (found.append(kwargs["metrics"]) if name == "after_val_epoch" else 0)
            or call(name, **kwargs)
        ),
        runner.call_hook,
    )
    runner.train()
    return runner, found[-1]


def test_both_are_measured(tmp_path):
    hooks = [dict(type="EMAHook", momentum=1e-6)]
    changes = {"optim_wrapper.optimizer.lr": 0.05}
    runner, metrics = run(tmp_path, custom_hooks=hooks, **changes)
    checkpoint = torch.load(tmp_path / "epoch_2.pth", weights_only=True)
    # the raw weights are back after validation
    raw = {name: value.clone() for name, value in runner.model.state_dict().items()}
    name = "backbone.head.weight"
    assert torch.equal(checkpoint["ema_state_dict"][f"module.{name}"], raw[name])
    assert not torch.equal(checkpoint["state_dict"][name], raw[name])

    for prefix, weights in (("", checkpoint["state_dict"]), ("raw/", raw)):
        runner.model.load_state_dict(weights)
        runner.model.eval()
        loop = runner.val_loop
        for index, batch in enumerate(loop.dataloader):
            loop.run_iter(index, batch)
        for key, value in loop.evaluator.evaluate(len(loop.dataloader.dataset)).items():
            assert metrics[prefix + key] == value or value != value, key
    shown = runner.message_hub.log_scalars["val/raw/accuracy/stage1.top1"].current()
    assert shown == metrics["raw/accuracy/stage1.top1"]


def test_without_averages_there_is_one(tmp_path):
    _, metrics = run(tmp_path)
    assert "accuracy/top1" in metrics
    assert not any(name.startswith("raw/") for name in metrics)
