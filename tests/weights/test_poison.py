"""No file runs code, fills the memory, or passes for good: every crafted file, through every entry.

``tools/analysis/benchmark.py`` and ``tools/analysis/flops.py`` read no checkpoint.
"""

import runpy
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from helpers import poison, poison_arrays, poison_pickles
from helpers.builders import LINEAR, VIT, batch, classifier, segmentor
from mmengine.config import Config

from tvit_seg import ThinkingClassifier, ThinkingEncoderDecoder, ThinkingSwin, ThinkingViT
from tvit_seg.engine.cli import good_checkpoint
from tvit_seg.errors import CheckpointError
from tvit_seg.inference import Predictor
from tvit_seg.models.pruning.teacher import Teacher
from tvit_seg.weights.io import read_checkpoint, trusting
from tvit_seg.weights.load import load_pretrained
from tvit_seg.weights.publish import read_source
from tvit_seg.weights.strict_loading import strict_loading

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py")
FILES = {
    **poison.CODE,
    **poison.ABSURD,
    **poison_arrays.ARRAYS,
    **poison_pickles.PICKLES,
}
SWIN = dict(embed_dims=12, depths=(1, 1), num_heads=(1, 2), window_size=2, patch_size=4)


@pytest.fixture(scope="module")
def craft(tmp_path_factory):
    """Writes a crafted file once; with it goes the marker that its code would make."""
    folder = tmp_path_factory.mktemp("poison")
    made = {}

    def write(name):
        if name not in made:
            make, suffix = FILES[name]
            path, marker = folder / f"{name}{suffix}", folder / f"{name}.marker"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript and quantization are deprecated
                make(path, marker)
            made[name] = path, marker
        return made[name]

    return write


def run_tool(*argv, patch):
    tool, *rest = map(str, argv)
    patch.setattr(sys, "argv", [tool, *rest])
    runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")


def from_init_cfg(model, **kwargs):
    def load(path, **_):
        model(init_cfg=dict(type="Pretrained", checkpoint=str(path)), **kwargs).init_weights()

    return load


def from_head(path, **_):
    head = dict(LINEAR, init_cfg=dict(type="Pretrained", checkpoint=str(path)))
    segmentor(head=head).init_weights()


def from_teacher(path, **_):
    backbone = classifier().backbone
    Teacher(dict(type="Pretrained", checkpoint=str(path)))(backbone, batch()[0])


def from_mmengine(path, **_):
    from mmengine.runner.checkpoint import load_checkpoint

    with strict_loading():
        load_checkpoint(classifier(), str(path))


def from_work_dir(path, folder, **_):
    work_dir = folder / f"resume_{path.stem}"
    work_dir.mkdir()
    (work_dir / "last_checkpoint").write_text(str(path))
    good_checkpoint(work_dir)


def tool(*argv, before=(), after=()):
    def run(path, folder, patch):
        out = folder / "out"
        run_tool(*argv, *before, path, *(a.format(out=out) for a in after), patch=patch)

    return run


def demo(path, folder, patch):
    picture = folder / "picture.png"
    cv2.imwrite(str(picture), np.zeros((96, 96, 3), np.uint8))
    run_tool("demo.py", picture, CONFIG, path, "--out-dir", folder / "out", patch=patch)


def train(option):
    def run(path, folder, patch):
        work_dir = ["--work-dir", folder / "train", "--skip-data-check"]
        run_tool("train.py", CONFIG, *work_dir, *option(path), patch=patch)

    return run


WORK = ("--work-dir", "{out}")
ENTRIES = {
    "read_checkpoint": lambda path, **_: read_checkpoint(path),
    "load_pretrained": lambda path, **_: load_pretrained(classifier(), str(path)),
    "ThinkingViT(init_cfg)": from_init_cfg(
        ThinkingViT, **{key: value for key, value in VIT.items() if key != "type"}
    ),
    "ThinkingSwin(init_cfg)": from_init_cfg(ThinkingSwin, thinking_stages=((1, 2),), **SWIN),
    "ThinkingClassifier(init_cfg)": from_init_cfg(ThinkingClassifier, backbone=VIT),
    "ThinkingEncoderDecoder(init_cfg)": from_init_cfg(
        ThinkingEncoderDecoder, backbone=VIT, decode_head=LINEAR
    ),
    "decode_head(init_cfg)": from_head,
    "pruning_loss(teacher)": from_teacher,
    "mmengine's loaders in our runner": from_mmengine,
    "Predictor": lambda path, **_: Predictor(Config.fromfile(CONFIG), path),
    "release.read_source": lambda path, **_: read_source(path),
    "resume from a work folder": from_work_dir,
    "train.py --resume": train(lambda path: ("--resume", path)),
    "train.py load_from": train(lambda path: ("--cfg-options", f"load_from={path}")),
    "train.py pretrained": train(
        lambda path: (
            "--cfg-options",
            "model.backbone.init_cfg.type=Pretrained",
            f"model.backbone.init_cfg.checkpoint={path}",
        )
    ),
    "test.py": tool("test.py", CONFIG, after=WORK),
    "sweep.py": tool("analysis/sweep.py", CONFIG, after=WORK),
    "demo.py": demo,
    "import_weights.py": tool("convert/import_weights.py", after=("{out}.pth",)),
    "export_weights.py": tool(
        "convert/export_weights.py", after=("{out}.pth", "--layout", "timm", "--stage", "0")
    ),
    "export_onnx.py": tool("export_onnx.py", CONFIG, after=("--out-dir", "{out}")),
    "timm.create_model(pretrained=True)": lambda path, **_: timm.create_model(
        "thinkingvit_3h_6h", pretrained=True, pretrained_cfg_overlay=dict(file=str(path))
    ),
    "publish_checkpoint.py": tool("publish_checkpoint.py", after=("{out}.pth",)),
}


EVERYWHERE = ("os_system", "nan", "tuple_as_key")
"""Tried through every entry in a short run, too; all others through the one behind them."""


def pairs():
    assert set(EVERYWHERE) <= FILES.keys()
    for name in FILES:
        for entry in ENTRIES:
            short = entry == "read_checkpoint" or name in EVERYWHERE
            yield pytest.param(name, entry, marks=() if short else pytest.mark.slow)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "entry"), pairs())
def test_is_refused(craft, tmp_path, monkeypatch, name, entry):
    path, marker = craft(name)
    with pytest.raises((CheckpointError, SystemExit)) as refused:
        ENTRIES[entry](path, folder=tmp_path, patch=monkeypatch)
    text = str(refused.value)
    assert path.name in text
    assert len(text.splitlines()) == 1
    assert refused.type is CheckpointError or text.startswith("error: ")
    assert not marker.exists()
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["os_system", "getattr_chain", "in_log_curves", "legacy"])
def test_trust_is_the_only_way(craft, name):
    """And the poison works."""
    path, marker = craft(name)
    with trusting(), pytest.warns(UserWarning, match="it is trusted: its code runs"):
        read_checkpoint(path)
    assert marker.exists()
    marker.unlink()
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    with trusting(False), pytest.raises(CheckpointError):
        read_checkpoint(path)


def test_trust_on_the_command_line(craft, tmp_path, monkeypatch):
    path, marker = craft("eval_in_weights")
    with pytest.raises(SystemExit), pytest.warns(UserWarning, match="it is trusted"):
        run_tool(
            "publish_checkpoint.py", path, tmp_path / "x", "--trust-checkpoint", patch=monkeypatch
        )
    assert marker.exists()
    marker.unlink()


@pytest.mark.parametrize(
    "name",
    ["train", "test", "demo", "export_onnx", "publish_checkpoint", "analysis/sweep",
     "convert/import_weights", "convert/export_weights"],
)  # fmt: skip
def test_every_tool_that_reads_has_the_flag(name, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_tool(f"{name}.py", "--help", patch=monkeypatch)
    assert "--trust-checkpoint" in capsys.readouterr().out


def test_torchs_own_switch_changes_nothing(craft, monkeypatch):
    """Many set it to load mmengine's checkpoints."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, marker = craft("os_system")
    with pytest.raises(CheckpointError, match="more than weights"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("trust", [False, True])
def test_config_text_is_never_executed(tmp_path, monkeypatch, trust):
    marker, path = tmp_path / "marker", tmp_path / "w.pth"
    weights = torch.load(ROOT / "checkpoints/quickstart.pth", weights_only=True)["state_dict"]
    text = f"open({str(marker)!r}, 'w')"
    torch.save(dict(state_dict=weights, meta=dict(config=text, cfg=text)), path)
    flag = ["--trust-checkpoint"] * trust
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((96, 96, 3), np.uint8))
    demo = ("demo.py", tmp_path / "a.png", CONFIG, path, "--out-dir", tmp_path / "out")
    run_tool(*demo, *flag, patch=monkeypatch)
    run_tool("publish_checkpoint.py", path, tmp_path / "p.pth", *flag, patch=monkeypatch)
    run_tool("convert/import_weights.py", path, tmp_path / "i.pth", "--head-dim", "16", *flag,
             patch=monkeypatch)  # fmt: skip
    assert not marker.exists()
    assert "config" not in read_checkpoint(tmp_path / "p.pth")["meta"]


@pytest.mark.parametrize(
    "meta",
    [
        ["epoch"],
        dict(dataset_meta="classes"),
        dict(dataset_meta=dict(classes=7)),
        dict(dataset_meta=dict(classes=["a"], palette=[[0, 0, 999]])),
    ],
)
def test_senseless_names_of_classes(tmp_path, meta):
    path = tmp_path / "w.pth"
    weights = torch.load(ROOT / "checkpoints/quickstart.pth", weights_only=True)["state_dict"]
    torch.save(dict(state_dict=weights, meta=meta), path)
    with pytest.raises(CheckpointError, match=r"meta is a list|does not name classes and colours"):
        Predictor(Config.fromfile(CONFIG), path)
