"""Two processes train as one with the doubled batch."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.classification import config, image_folder
from helpers.processes import run_together

from tvit_seg.engine import ThinkingRunner, close_distributed, prepare_distributed

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU"),
    pytest.mark.integration,
]
SANDWICH = {
    "model.sandwich": True,
    "model.backbone.thinking_stages": (1, 2, 3, 4),
    "find_unused_parameters": True,
}


def train(root, work_dir, batch_size, launcher="none", changes=()):
    """Logged losses and learning rates of every step, and the metrics of the last validation."""
    cfg = config(
        root,
        work_dir,
        launcher=launcher,
        auto_scale_lr=dict(enable=True, base_batch_size=8),
        **{"train_dataloader.batch_size": batch_size},
        **dict(changes),
    )
    prepare_distributed(cfg)
    runner = ThinkingRunner.from_cfg(cfg)
    runner.train()
    scalars = runner.message_hub.log_scalars
    names = [name for name in scalars if name.startswith("train/") and "time" not in name]
    curves = {name: scalars[name].data[0].tolist() for name in names}
    curves["top1"] = scalars["val/accuracy/top1"].current()
    curves["samples"] = scalars["val/accuracy/stage0.share"].current()
    close_distributed(runner)
    return curves


@pytest.mark.parametrize("changes", [{}, SANDWICH], ids=["joint", "sandwich"])
def test_the_same_losses(tmp_path, changes):
    root = image_folder(tmp_path / "images")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    alone = train(root, tmp_path / "one", 4, changes=changes)
    assert len(alone["train/loss"]) == 6
    assert alone["train/lr"] == [5e-4] * 6
    if changes:  # the stage in between varies
        chosen = [len(alone[f"train/stage{stage}.loss"]) for stage in (1, 2)]
        assert sum(chosen) == 6 and min(chosen) > 0

    run_together(2, __file__, root, tmp_path / "two", json.dumps(changes), cwd=tmp_path)
    together = json.loads((tmp_path / "two" / "curves.json").read_text())
    assert together.keys() == alone.keys()
    for name in alone:
        np.testing.assert_allclose(together[name], alone[name], atol=1e-5, rtol=0, err_msg=name)


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    found = train(sys.argv[1], folder, 2, "pytorch", json.loads(sys.argv[3]))
    if os.environ["RANK"] == "0":
        (folder / "curves.json").write_text(json.dumps(found))
