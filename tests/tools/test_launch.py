"""Tools for training and testing from the command line."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.processes import free_port

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]

CONFIG = """
default_scope = "mmseg"
data = dict(
    type="BaseSegDataset", data_root={root!r}, img_suffix=".png",
    metainfo=dict(classes=("left", "right"), palette=[[0, 0, 0], [255, 0, 0]]),
    data_prefix=dict(img_path="images", seg_map_path="labels"),
    pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"),
              dict(type="PackSegInputs")],
)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", size=(64, 64)),
    backbone=dict(type="VisionTransformer", img_size=(64, 64), patch_size=16, embed_dims=24,
                  num_layers=2, num_heads=2, out_indices=(1,), final_norm=True),
    decode_head=dict(type="FCNHead", in_channels=24, channels=8, num_convs=1, num_classes=2,
                     concat_input=False, norm_cfg=dict(type="BN")),
    test_cfg=dict(mode="whole"),
)
train_dataloader = dict(batch_size=2, num_workers=0, dataset=data,
                        sampler=dict(type="InfiniteSampler", shuffle=True))
val_dataloader = dict(batch_size=1, num_workers=0, dataset=data,
                      sampler=dict(type="DefaultSampler", shuffle=False))
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=2)
val_cfg = test_cfg = dict()
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.001))
default_hooks = dict(checkpoint=dict(type="CheckpointHook", by_epoch=False))
tta_model = dict(type="SegTTAModel")
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="TestTimeAug", transforms=[
        [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
        [dict(type="LoadAnnotations")], [dict(type="PackSegInputs")]]),
]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for i in range(4):
        image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        label = np.repeat([[0, 1]], 32, axis=1).repeat(64, axis=0).astype(np.uint8)
        cv2.imwrite(str(root / "images" / f"{i}.png"), image)
        cv2.imwrite(str(root / "labels" / f"{i}.png"), label)
    path = root / "tiny.py"
    path.write_text(CONFIG.format(root=str(root)))
    return path


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a tool in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "0")
    counter = iter(range(99))

    def call(tool, *arguments):
        spec = importlib.util.spec_from_file_location(f"tool_{tool}", ROOT / "tools" / f"{tool}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        # mmengine keeps global state under the name of an experiment.
        unique = f"experiment_name={tmp_path.name}_{next(counter)}"
        monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments), "--cfg-options", unique])
        module.main()

    return call


def test_train_resume_and_test(config, run, tmp_path):
    work = tmp_path / "work_dirs" / "tiny"
    run("train", config, "--skip-data-check")
    assert (work / "iter_2.pth").is_file()
    longer = tmp_path / "tiny.py"
    longer.write_text(config.read_text().replace("max_iters=2", "max_iters=4"))
    run("train", longer, "--resume", "--amp")
    assert (work / "last_checkpoint").read_text().endswith("iter_4.pth")
    state = torch.load(work / "iter_4.pth", weights_only=True)
    assert state["optimizer"]["state"][0]["step"] == 4
    assert state["meta"]["dataset_meta"]["classes"] == ("left", "right")

    run("test", config, work / "iter_4.pth", "--out", "maps", "--show-dir", "painted")
    assert sorted(os.listdir("maps")) == ["0.png", "1.png", "2.png", "3.png"]
    assert len(list(Path("painted").glob("test_?.png_?.png"))) == 4
    run("test", config, work / "iter_4.pth", "--tta")


def test_malicious_checkpoint_is_not_executed(config, run, tmp_path):
    class Malice:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'marker'}",)

    torch.save({"state_dict": Malice()}, "evil.pth")
    for arguments in [("test", config, "evil.pth"), ("train", config, "--resume", "evil.pth")]:
        with pytest.raises(SystemExit, match=r"error: .*more than weights"):
            run(*arguments)
    assert not (tmp_path / "marker").exists()


def test_errors_before_work_starts(config, run, tmp_path):
    with pytest.raises(SystemExit, match=r"error: config nowhere\.py does not exist"):
        run("train", "nowhere.py")
    with pytest.raises(SystemExit, match=r"error: checkpoint nowhere\.pth does not exist"):
        run("test", config, "nowhere.pth")
    with pytest.raises(SystemExit, match=r"error: checkpoint nowhere\.pth does not exist"):
        run("train", config, "--resume", "nowhere.pth")
    (tmp_path / "broken.py").write_text("model = dict(")
    with pytest.raises(SystemExit, match=r"error: config broken\.py cannot be read"):
        run("train", "broken.py")
    (tmp_path / "typo.py").write_text(config.read_text().replace("EncoderDec", "EncodrDec"))
    with pytest.raises(SystemExit, match=r"error: .* EncodrDecoder is not in the mmseg::model"):
        run("train", "typo.py")
    (tmp_path / "plain.py").write_text(config.read_text().replace("tta_", "no_tta_"))
    Path("w.pth").touch()
    torch.save({"state_dict": {"x": torch.zeros(1)}}, "good.pth")
    with pytest.raises(SystemExit, match="error: --tta needs tta_model and tta_pipeline"):
        run("test", "plain.py", "good.pth", "--tta")
    with pytest.raises(SystemExit, match=r"error: checkpoint w\.pth .*is truncated"):
        run("test", config, "w.pth")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_scripts_with_two_processes(config, tmp_path):
    """As in the README, and nothing else, on a machine without a GPU."""
    assert "\nbash tools/dist_train.sh $CONFIG 8 " in (ROOT / "README.md").read_text()
    settings = {"PYTHON": sys.executable, "PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    settings["XDG_CACHE_HOME"] = str(tmp_path / "cache")

    def script(name, *arguments):
        return subprocess.run(
            [ROOT / "tools" / name, *map(str, arguments), "--work-dir", "w dir"],
            env={**os.environ, **settings},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    bad = tmp_path / "bad.py"
    bad.write_text(config.read_text().replace('"labels"', '"nowhere"'))
    done = script("dist_train.sh", bad, 2)
    assert done.returncode != 0
    assert done.stderr.count("error: BaseSegDataset: not found: ") == 1  # the others are silent
    for command in (
        ("dist_train.sh", config, 2),
        ("dist_test.sh", config, "w dir/iter_2.pth", 2, "--out", "maps"),
    ):
        done = script(*command)
        assert done.returncode == 0, done.stderr[-4000:]
    assert len(os.listdir(tmp_path / "maps")) == 4


@pytest.mark.parametrize("name", ["dist_train", "dist_test", "slurm_train", "slurm_test"])
def test_scripts_explain_themselves(name):
    done = subprocess.run([ROOT / "tools" / f"{name}.sh"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage:" in done.stderr
