"""Two processes train as one with the doubled batch."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from classification import config, image_folder
from processes import run_together

from tvit_seg.engine import ThinkingRunner, close_distributed, prepare_distributed

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
NAMES = ("loss", "stage0.loss", "stage1.loss", "lr")


def train(root, work_dir, batch_size, launcher="none"):
    """Logged losses and learning rates of every step, and the metrics of the last validation."""
    cfg = config(
        root,
        work_dir,
        launcher=launcher,
        auto_scale_lr=dict(enable=True, base_batch_size=8),
        **{"train_dataloader.batch_size": batch_size},
    )
    prepare_distributed(cfg)
    runner = ThinkingRunner.from_cfg(cfg)
    runner.train()
    scalars = runner.message_hub.log_scalars
    curves = {name: scalars[f"train/{name}"].data[0].tolist() for name in NAMES}
    curves["top1"] = scalars["val/accuracy/top1"].current()
    curves["samples"] = scalars["val/accuracy/stage0.share"].current()
    close_distributed(runner)
    return curves


def test_the_same_losses(tmp_path):
    root = image_folder(tmp_path / "images")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    alone = train(root, tmp_path / "one", 4)
    assert len(alone["loss"]) == 6
    assert alone["lr"] == [5e-4] * 6

    run_together(2, __file__, root, tmp_path / "two", cwd=tmp_path)
    together = json.loads((tmp_path / "two" / "curves.json").read_text())
    for name in NAMES:
        np.testing.assert_allclose(together[name], alone[name], atol=1e-5, rtol=0, err_msg=name)
    assert together["top1"] == alone["top1"]
    assert together["samples"] == alone["samples"]


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    found = train(sys.argv[1], folder, 2, "pytorch")
    if os.environ["RANK"] == "0":
        (folder / "curves.json").write_text(json.dumps(found))
