"""No file runs code: crafted ones of every format, and one of them through every entry."""

import builtins
import importlib
import io
import os
import pickle
import runpy
import sys
import tarfile
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from helpers.builders import LINEAR, VIT, batch, classifier, segmentor
from mmengine.config import Config
from mmengine.runner.checkpoint import load_checkpoint
from torch import nn

from tvit_seg import ThinkingClassifier, ThinkingEncoderDecoder, ThinkingSwin, ThinkingViT
from tvit_seg.engine.hooks.checkpoint import good_checkpoint
from tvit_seg.errors import CheckpointError
from tvit_seg.inference import Predictor
from tvit_seg.models.pruning.teacher import Teacher
from tvit_seg.weights.io import read_checkpoint, trusting
from tvit_seg.weights.load import load_pretrained, strict_loading
from tvit_seg.weights.publish import read_source

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py")
WEIGHTS = {"head.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.zeros(2)}


class Call:
    """Calls a function, itself made by a call or not, when it is unpickled."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args

    def __call__(self):
        raise AssertionError("only unpickling calls it")


def system(marker):
    return Call(os.system, f"touch {marker}")


def opened(marker):
    return f"open({str(marker)!r}, 'w')"


def getattr_chain(marker):
    """A call that allowing ``getattr`` for mmengine's HistoryBuffer would let through."""
    module = Call(importlib.import_module, "os")
    return Call(Call(getattr, module, "system"), f"touch {marker}")


def in_state_of_ordered_dict(marker):
    weights = OrderedDict(WEIGHTS)
    weights._metadata = system(marker)
    return weights


def legacy(path, marker):
    content = {"state_dict": WEIGHTS, "meta": system(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def legacy_tar(path, marker):
    evil = pickle.dumps(system(marker), protocol=2)
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = len(evil)
            archive.addfile(info, io.BytesIO(evil))


def bare(protocol):
    def write(path, marker):
        path.write_bytes(pickle.dumps({"state_dict": system(marker)}, protocol=protocol))

    return write


def torchscript(path, marker):
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), str(path))


def objects_in_arrays(path, marker):
    np.savez(path, **{"param/a": np.array([system(marker)])})


ARCHIVES = {
    "os_system": lambda m: {"state_dict": WEIGHTS, "meta": system(m)},
    "eval_in_weights": lambda m: {"state_dict": {**WEIGHTS, "w": Call(builtins.eval, opened(m))}},
    "exec_as_key": lambda m: {Call(builtins.exec, opened(m)): 1, "state_dict": WEIGHTS},
    "getattr_chain": lambda m: {"state_dict": WEIGHTS, "x": getattr_chain(m)},
    "in_log_curves": lambda m: {"state_dict": WEIGHTS, "message_hub": {"log": [system(m)]}},
    "in_state_of_ordered_dict": lambda m: {"state_dict": in_state_of_ordered_dict(m)},
}
NAMED = {
    "eval_in_weights": "builtins.eval",
    "exec_as_key": "builtins.exec",
    "getattr_chain": "builtins.getattr, importlib.import_module",
}
OTHERS = {
    "legacy": (legacy, ".pth"),
    "legacy_tar": (legacy_tar, ".pth"),
    "bare_protocol_0": (bare(0), ".pth"),
    "bare_protocol_5": (bare(5), ".bin"),
    "torchscript": (torchscript, ".pt"),
    "pickle_as_safetensors": (bare(2), ".safetensors"),
    "objects_in_arrays": (objects_in_arrays, ".npz"),
    "pickle_as_arrays": (bare(2), ".npz"),
}


@pytest.fixture
def craft(tmp_path):
    """Writes a file whose code would make the marker."""

    def write(name):
        marker = tmp_path / f"{name}.marker"
        make, suffix = OTHERS.get(name, (None, ".pth"))
        path = tmp_path / f"crafted_{name}{suffix}"
        make(path, marker) if make else torch.save(ARCHIVES[name](marker), path)
        return path, marker

    return write


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated
@pytest.mark.parametrize("name", [*ARCHIVES, *OTHERS])
def test_is_refused(craft, name):
    path, marker = craft(name)
    with pytest.raises(CheckpointError, match=path.name) as refused:
        read_checkpoint(path)
    assert str(refused.value).isprintable()
    assert name not in ARCHIVES or NAMED.get(name, "posix.system") in str(refused.value)
    assert "weights_only" not in str(refused.value)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["os_system", "legacy"])
def test_trust_is_the_only_way(craft, monkeypatch, name):
    """Many set torch's own switch to load mmengine's checkpoints."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, marker = craft(name)
    with trusting(False), pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not marker.exists()
    with trusting(), pytest.warns(UserWarning, match="it is trusted: its code runs"):
        read_checkpoint(path)
    assert marker.exists()


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
    Teacher(dict(type="Pretrained", checkpoint=str(path)))(classifier().backbone, batch()[0])


def from_mmengine(path, **_):
    with strict_loading():
        load_checkpoint(classifier(), str(path))


def from_work_dir(path, folder, **_):
    (folder / "last_checkpoint").write_text(str(path))
    good_checkpoint(folder)


def from_timm(path, **_):
    overlay = dict(file=str(path))
    timm.create_model("thinkingvit_3h_6h", pretrained=True, pretrained_cfg_overlay=overlay)


def tool(*argv):
    def run(path, folder, patch):
        cv2.imwrite(str(folder / "picture.png"), np.zeros((96, 96, 3), np.uint8))
        places = dict(path=path, folder=folder, config=CONFIG)
        run_tool(*(part.format(**places) for part in argv), patch=patch)

    return run


BACKBONE = {key: value for key, value in VIT.items() if key != "type"}
SWIN = dict(embed_dims=12, depths=(1, 1), num_heads=(1, 2), window_size=2, patch_size=4)
TRAIN = ("train.py", "{config}", "--work-dir", "{folder}", "--skip-data-check")
TEST = ("{config}", "{path}", "--work-dir", "{folder}")
STAGE = ("--layout", "timm", "--stage", "0")
ENTRIES = {
    "load_pretrained": lambda path, **_: load_pretrained(classifier(), str(path)),
    "ThinkingViT": from_init_cfg(ThinkingViT, **BACKBONE),
    "ThinkingSwin": from_init_cfg(ThinkingSwin, thinking_stages=((1, 2),), **SWIN),
    "ThinkingClassifier": from_init_cfg(ThinkingClassifier, backbone=VIT),
    "segmentor": from_init_cfg(ThinkingEncoderDecoder, backbone=VIT, decode_head=LINEAR),
    "decode_head": from_head,
    "teacher": from_teacher,
    "mmengine": from_mmengine,
    "Predictor": lambda path, **_: Predictor(Config.fromfile(CONFIG), path),
    "read_source": lambda path, **_: read_source(path),
    "work folder": from_work_dir,
    "timm": from_timm,
    "--resume": tool(*TRAIN, "--resume", "{path}"),
    "load_from": tool(*TRAIN, "--cfg-options", "load_from={path}"),
    "test.py": tool("test.py", *TEST),
    "sweep.py": tool("analysis/sweep.py", *TEST),
    "demo.py": tool("demo.py", "{folder}/picture.png", "{config}", "{path}"),
    "import": tool("convert/import_weights.py", "{path}", "{folder}/out.pth"),
    "export": tool("convert/export_weights.py", "{path}", "{folder}/out.pth", *STAGE),
    "onnx": tool("export_onnx.py", "{config}", "{path}", "--out-dir", "{folder}"),
    "publish": tool("publish_checkpoint.py", "{path}", "{folder}/out.pth"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_refuses(craft, tmp_path, monkeypatch, entry):
    path, marker = craft("os_system")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises((CheckpointError, SystemExit), match=path.name) as refused:
        ENTRIES[entry](path, folder=folder, patch=monkeypatch)
    assert len(str(refused.value).splitlines()) == 1
    assert not marker.exists()
    assert not list(folder.rglob("*.pth"))


@pytest.mark.parametrize(
    "name",
    ["train", "test", "demo", "export_onnx", "publish_checkpoint", "analysis/sweep",
     "convert/import_weights", "convert/export_weights"],
)  # fmt: skip
def test_every_tool_that_reads_has_the_flag(name, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_tool(f"{name}.py", "--help", patch=monkeypatch)
    assert "--trust-checkpoint" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
def test_config_text_is_never_executed(tmp_path, monkeypatch):
    marker, path = tmp_path / "marker", tmp_path / "w.pth"
    weights = torch.load(ROOT / "checkpoints/quickstart.pth", weights_only=True)["state_dict"]
    text = opened(marker)
    torch.save(dict(state_dict=weights, meta=dict(config=text, cfg=text)), path)
    Predictor(Config.fromfile(CONFIG), path)
    run_tool("publish_checkpoint.py", path, tmp_path / "p.pth", "--trust-checkpoint",
             patch=monkeypatch)  # fmt: skip
    assert not marker.exists()
    assert "config" not in read_checkpoint(tmp_path / "p.pth")["meta"]


@pytest.mark.parametrize(
    "meta",
    [
        ["epoch"],
        dict(dataset_meta="classes"),
        dict(dataset_meta=dict(palette=[[0, 0, 9]])),
    ],
)
def test_senseless_names_of_classes(tmp_path, meta):
    path = tmp_path / "w.pth"
    weights = torch.load(ROOT / "checkpoints/quickstart.pth", weights_only=True)["state_dict"]
    torch.save(dict(state_dict=weights, meta=meta), path)
    with pytest.raises(CheckpointError, match=r"meta must be a dict|must name the classes"):
        Predictor(Config.fromfile(CONFIG), path)
