"""Experiment trackers record losses, exits, cost and overlays."""

import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).parents[2]
LEAF = ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py"


def tracked_config(folder, tracker):
    """A shipped config whose runtime is a tracker's, written as the documentation does it."""
    text = LEAF.read_text().replace("../_base_", str(ROOT / "configs/_base_"))
    path = folder / f"{tracker}.py"
    path.write_text(text.replace("runtime/default.py", f"runtime/{tracker}.py"))
    return path


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "mlflow"])
def test_fragment_keeps_the_runtime(tracker, tmp_path):
    cfg = Config.fromfile(tracked_config(tmp_path, tracker))
    plain = Config.fromfile(LEAF)
    kinds = [backend.type for backend in cfg.visualizer.vis_backends]
    assert kinds[0] == "LocalVisBackend"
    assert kinds[1].lower() == f"{tracker}visbackend"
    changed = {key for key in cfg if cfg[key] != plain.get(key)}
    assert changed == {"visualizer", "custom_hooks"}
    assert cfg.visualizer.type == "ThinkingVisualizer"


@pytest.mark.integration
def test_tensorboard_reads_back(tmp_path):
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="TensorBoard is not installed: pip install tensorboard",
    )

    def run(*command):
        done = subprocess.run(
            [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    data, work = tmp_path / "scenes", tmp_path / "work"
    run("tools/make_scenes.py", data, "--size", 96, "--num-train", 8, "--num-val", 3)
    options = [
        *(f"{split}_dataloader.dataset.data_root={data}" for split in ("train", "val", "test")),
        *(f"{split}_dataloader.num_workers=0" for split in ("train", "val", "test")),
        *(f"{split}_dataloader.persistent_workers=False" for split in ("train", "val", "test")),
        *("train_dataloader.batch_size=2", "train_cfg.max_iters=4", "train_cfg.val_interval=2"),
        *("default_hooks.logger.interval=1", "custom_hooks.0.interval=1"),
    ]
    config = tracked_config(tmp_path, "tensorboard")
    run("tools/train.py", config, "--work-dir", work, "--cfg-options", *options)

    (file,) = work.rglob("events.out.tfevents.*")
    found = events.EventAccumulator(str(file), size_guidance={"images": 0}).Reload()
    scalars = {tag: found.Scalars(tag) for tag in found.Tags()["scalars"]}
    assert [event.step for event in scalars["loss"]] == [1, 2, 3, 4]
    parts = [
        scalars[f"stage{stage}.{part}"]
        for stage in (0, 1)
        for part in ("decode.loss_ce", "image.loss")
    ]
    for events_at_step in zip(scalars["loss"], *parts, strict=True):
        total, *terms = (event.value for event in events_at_step)
        assert total == pytest.approx(sum(terms), rel=1e-3)
    shares = [[event.value for event in scalars[f"thinking/stage{i}.share"]] for i in (0, 1)]
    assert [sum(pair) for pair in zip(*shares, strict=True)] == pytest.approx([100, 100])
    assert [event.step for event in scalars["thinking/gmacs"]] == [2, 4]
    assert {"mIoU", "thinking/stage0.mIoU", "thinking/stage1.mIoU"} <= set(scalars)
    (overlays,) = found.Tags()["images"]  # the first of each batch
    assert [event.step for event in found.Images(overlays)] == [2, 4]
