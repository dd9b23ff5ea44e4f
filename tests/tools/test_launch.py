import argparse
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
from mmengine.config import Config

from tvit_seg.engine.cli import (
    add_common_arguments,
    find_checkpoints,
    friendly_errors,
    good_checkpoint,
    is_first_process,
    latest_checkpoint,
    load_config,
    set_resume,
    use_amp,
)
from tvit_seg.errors import DataError
from tvit_seg.weights.io import write_checkpoint

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


def parse(*arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    add_common_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


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
    with pytest.raises(SystemExit, match=r"error: w\.pth \(0 bytes\) is truncated"):
        run("test", config, "w.pth")


@pytest.mark.parametrize("option", ["novalue", "=1", "a=[1,(2]"])
def test_malformed_options(option, capsys):
    with pytest.raises(SystemExit):
        parse("c.py", "--cfg-options", option)
    assert option in capsys.readouterr().err


def test_options_and_work_dir(config):
    cfg = load_config(parse(config, "--cfg-options", "a.b=[1,2]", "train_cfg.max_iters=7"))
    assert cfg.a.b == [1, 2]
    assert cfg.train_cfg.max_iters == 7
    assert Path(cfg.work_dir) == Path("work_dirs/tiny")
    assert cfg.runner_type == "ThinkingRunner"
    assert load_config(parse(config, "--work-dir", "x")).work_dir == "x"
    with pytest.raises(ValueError, match="--cfg-options do not fit"):
        load_config(parse(config, "--cfg-options", "default_scope.x=1"))


def test_resume_auto(tmp_path, capsys):
    cfg = Config({"work_dir": str(tmp_path), "load_from": "pretrained.pth"})
    set_resume(cfg, None)
    assert "resume" not in cfg
    set_resume(cfg, "auto")
    assert (cfg.resume, cfg.load_from) == (False, "pretrained.pth")
    assert "nothing to resume" in capsys.readouterr().out
    torch.save({}, tmp_path / "iter_2.pth")
    set_resume(cfg, "auto")
    assert (cfg.resume, cfg.load_from) == (True, str(tmp_path / "iter_2.pth"))


def test_latest_checkpoint_with_a_damaged_pointer(tmp_path):
    for i, name in enumerate(["iter_9.pth", "iter_10.pth", "best_mIoU_iter_10.pth"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (i, i))
    for pointer in (b"", b"/moved/iter_11.pth", b"\0" * 20, b"\xff\xfe", b"x" * 5000):
        (tmp_path / "last_checkpoint").write_bytes(pointer)
        assert latest_checkpoint(tmp_path) == tmp_path / "iter_10.pth"
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_9.pth"))
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_9.pth"


def test_checkpoints_are_ordered_by_their_numbers(tmp_path):
    """Copying a folder, or unpacking it, gives its files times in any order."""
    names = ["iter_100", "iter_90", "iter_final", "epoch_2", "epoch_10", "epoch_1"]
    for i, name in enumerate(names):
        (tmp_path / f"{name}.pth").touch()
        os.utime(tmp_path / f"{name}.pth", (i, i))
    (tmp_path / "iter_7.pth").symlink_to("/nowhere")
    found = [path.stem for path in find_checkpoints(tmp_path)]
    assert found == ["epoch_10", "epoch_2", "epoch_1", "iter_100", "iter_90", "iter_final"]


def test_what_is_no_file_is_no_checkpoint(tmp_path):
    write_checkpoint({"state_dict": {"w": torch.zeros(1)}}, tmp_path / "iter_2.pth")
    (tmp_path / "iter_7.pth").symlink_to("/nowhere")
    assert good_checkpoint(tmp_path) == tmp_path / "iter_2.pth"
    (tmp_path / "iter_9.pth").mkdir()
    with pytest.warns(UserWarning, match=r"iter_2\.pth is the latest good .*since\n.*iter_9\.pth"):
        assert good_checkpoint(tmp_path) == tmp_path / "iter_2.pth"


@pytest.mark.parametrize("pointer", ["", None, "moved"])
def test_checkpoints_in_another_folder(tmp_path, pointer):
    """``CheckpointHook(out_dir=...)`` saves there, and the pointer stays in the work folder."""
    work_dir, out = tmp_path / "w", tmp_path / "out" / "w"
    work_dir.mkdir()
    write_checkpoint({"state_dict": {"w": torch.zeros(1)}}, out / "iter_5.pth")
    if pointer is not None:
        (work_dir / "last_checkpoint").write_text(pointer)
    cfg = Config(dict(work_dir=str(work_dir)))
    cfg.default_hooks = dict(checkpoint=dict(type="CheckpointHook", out_dir=str(tmp_path / "out")))
    set_resume(cfg, "auto")
    assert (cfg.resume, cfg.load_from) == (True, str(out / "iter_5.pth"))


@pytest.mark.parametrize("gpu", [True, False])
def test_amp(monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    cfg = Config({"optim_wrapper": {"type": "OptimWrapper"}})
    use_amp(cfg)
    assert cfg.optim_wrapper.type == ("AmpOptimWrapper" if gpu else "AutocastOptimWrapper")
    with pytest.raises(ValueError, match="has 'Other'"):
        use_amp(Config({"optim_wrapper": {"type": "Other"}}))


def test_friendly_errors(monkeypatch):
    with pytest.raises(SystemExit, match="error: message"), friendly_errors():
        raise ValueError("message")
    with pytest.raises(ValueError, match="message"), friendly_errors(FileNotFoundError):
        raise ValueError("message")
    monkeypatch.setenv("TVIT_DEBUG", "1")
    with pytest.raises(ValueError, match="message"), friendly_errors():
        raise ValueError("message")


class Missing(torch.utils.data.Dataset):
    """One that cannot be read."""

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            return {}[index]
        except KeyError as error:
            raise self.kind("a/b.png: corrupt\nand more") from error


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [DataError, FileNotFoundError])
def test_an_error_in_a_loading_process(kind, workers):
    with pytest.raises(SystemExit) as caught, friendly_errors(kind):
        next(iter(torch.utils.data.DataLoader(Missing(kind), num_workers=workers)))
    assert str(caught.value) == "error: a/b.png: corrupt\nand more"


def test_first_process(monkeypatch):
    assert is_first_process()
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert not is_first_process()


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
