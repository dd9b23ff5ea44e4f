"""Two processes train as one with the doubled batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from classification import config, image_folder

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

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += [f"--master_port={port}", __file__, str(root), str(tmp_path / "two")]
    places = [str(Path(__file__).parents[i]) for i in (1, 2)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
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
