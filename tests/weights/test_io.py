"""Checkpoints are read and written whole, and as weights only."""

import argparse
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tvit_seg.errors import CheckpointError
from tvit_seg.weights.io import (
    get_meta,
    get_state_dict,
    non_finite,
    plain,
    read_checkpoint,
    which_weights,
    write_checkpoint,
)

NAN = torch.tensor([0.0, torch.nan])


@pytest.fixture
def weights():
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


def save(weights, path, legacy=False):
    if path.suffix == ".safetensors":
        save_file(weights, path)
    elif path.suffix == ".npz":
        np.savez(path, **{f"param/{k}": v.numpy() for k, v in weights.items()}, x=np.zeros(3))
    else:
        torch.save({"state_dict": weights}, path, _use_new_zipfile_serialization=not legacy)


FORMATS = pytest.mark.parametrize(
    ("name", "legacy"),
    [("w.pth", False), ("w.pth", True), ("w.safetensors", False), ("w.npz", False)],
)


@FORMATS
def test_reads(tmp_path, weights, name, legacy):
    save(weights, tmp_path / name, legacy)
    found = get_state_dict(read_checkpoint(str(tmp_path / name)))
    torch.testing.assert_close(found, weights)


def test_reads_what_timm_saves(tmp_path, weights):
    args = argparse.Namespace(lr=0.1, opt="adamw")
    torch.save({"state_dict": weights, "args": args, "arch": "vit"}, tmp_path / "w.pth.tar")
    assert read_checkpoint(tmp_path / "w.pth.tar")["args"] == args


@FORMATS
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated(tmp_path, weights, name, legacy, share):
    path = tmp_path / name
    weights["large"] = torch.randn(100, 100)  # torch fails in other ways on larger files
    save(weights, path, legacy)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    size = path.stat().st_size
    with pytest.raises(CheckpointError, match=rf"{name} \({size} bytes\) is truncated or not a"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["w.pth", "w.npz"])
def test_a_flipped_bit_in_an_archive(tmp_path, name):
    weight = torch.arange(300.0)
    save({"w": weight}, tmp_path / name)
    content = bytearray((tmp_path / name).read_bytes())
    content[content.find(weight.numpy().tobytes()) + 100] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="wrong checksum"):
        read_checkpoint(tmp_path / name)


def test_inserted_bytes_in_the_legacy_format(tmp_path, weights):
    """It has no checksums; the weights behind the bytes would be shifted."""
    path = tmp_path / "w.pth"
    save(weights, path, legacy=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\0" * 16 + whole[-4:])
    with pytest.raises(CheckpointError, match="bytes are left over"):
        read_checkpoint(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_other_files(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(CheckpointError, match="truncated or not a checkpoint"):
        read_checkpoint(path)


def test_other_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth does not exist"):
        read_checkpoint(tmp_path / "nowhere.pth")
    with pytest.raises(CheckpointError, match="only local files"):
        read_checkpoint("https://example.com/w.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    for path in (tmp_path, tmp_path / "pipe.pth"):
        with pytest.raises(CheckpointError, match="is not a regular file"):
            read_checkpoint(path)


def test_not_a_dict(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"state_dict": {"w": NAN}}, "state_dict.w"),
        ({"optimizer": {"state": {0: [1.0, NAN]}}}, "optimizer.state.0.1"),
        ({"a\nb\x1b[31m" + "k" * 10**5: torch.tensor([-torch.inf]).half()}, r"a\nb\x1b[31m"),
    ],
)
def test_not_finite(tmp_path, content, name):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="1 tensors hold NaN or infinity") as refused:
        read_checkpoint(tmp_path / "w.pth")
    text = str(refused.value)
    assert name in text
    assert text.isprintable()
    assert len(text) < 1000
    assert list(non_finite({"float8": torch.ones(2).to(torch.float8_e4m3fn), "n": 1})) == []


@pytest.mark.parametrize("key", ["state_dict", "model", "state_dict_ema", "teacher", None])
def test_finds_the_weights(weights, key):
    assert get_state_dict({key: weights, "epoch": 1} if key else weights) == weights


def test_chooses_raw_or_averaged(weights):
    averaged = {f"module.{name}": value + 1 for name, value in weights.items()}
    checkpoint = {"model": weights, "model_ema": averaged}
    assert get_state_dict(checkpoint) == weights
    assert get_state_dict(checkpoint, ema=True).keys() == weights.keys()
    assert get_state_dict({"model": weights}, ema=True) == weights
    named = [which_weights(checkpoint, ema) for ema in (None, True, False)]
    assert named == ["raw", "averaged", "raw"]
    assert which_weights({"model": weights}, True) == "only"


def test_averages_of_mmengine(weights):
    raw = {f"module.{name}": value + 1 for name, value in weights.items()}
    raw["steps"] = torch.tensor(3)
    checkpoint = {"state_dict": weights, "ema_state_dict": raw}
    assert get_state_dict(checkpoint) == get_state_dict(checkpoint, ema=True) == weights
    found = get_state_dict(checkpoint, ema=False)
    assert found.keys() == weights.keys()
    torch.testing.assert_close(found["a.bias"], weights["a.bias"] + 1)
    named = [which_weights(checkpoint, ema) for ema in (None, True, False)]
    assert named == ["averaged", "averaged", "raw"]


def test_no_weights():
    with pytest.raises(CheckpointError, match="has the keys epoch, optimizer"):
        get_state_dict({"epoch": 3, "optimizer": {}})
    with pytest.raises(CheckpointError, match="meta must be a dict"):
        get_meta({"meta": [1]})


def test_plain_values_survive_weights_only(tmp_path):
    meta = {
        "classes": ("road", "car"),
        "palette": np.array([[1, 2, 3]], dtype=np.uint8),
        "best": np.float64(0.5),
        "flag": np.bool_(True),
        "name": np.str_("x"),
        "none": None,
        "size": torch.Size([1, 2]),
        3: [1.5, torch.ones(2)],
    }
    write_checkpoint({"meta": meta}, tmp_path / "new" / "w.pth")
    read = read_checkpoint(tmp_path / "new" / "w.pth")["meta"]
    assert read["classes"] == ("road", "car")
    assert read["palette"] == [[1, 2, 3]]
    assert (read["best"], read["flag"], read["name"]) == (0.5, True, "x")
    assert (type(read["best"]), type(read["flag"]), read[3][0]) == (float, bool, 1.5)


def test_plain_keeps_versions_of_layers(tmp_path):
    state_dict = nn.BatchNorm2d(2).state_dict()
    write_checkpoint({"state_dict": state_dict}, tmp_path / "w.pth")
    read = read_checkpoint(tmp_path / "w.pth")["state_dict"]
    assert isinstance(read, OrderedDict)
    assert read._metadata == state_dict._metadata


@pytest.mark.parametrize("value", [len, {1, 2}, {1.5: 1}])
def test_plain_names_what_it_cannot_keep(value):
    with pytest.raises(TypeError, match=r"checkpoint\['meta'\]\[1\] must"):
        plain({"meta": [0, value]})


@pytest.mark.parametrize("failure", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_old_file_survives_a_failure(tmp_path, weights, monkeypatch, failure):
    path = tmp_path / "w.pth"
    write_checkpoint({"state_dict": weights, "meta": 1}, path)

    def half(obj, file):
        Path(file).write_bytes(b"half")
        raise failure

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(type(failure)):
        write_checkpoint({"state_dict": weights, "meta": 2}, path)
    assert read_checkpoint(path)["meta"] == 1
    assert os.listdir(tmp_path) == ["w.pth"]


def test_safetensors_keep_weights_and_plain_values(tmp_path, weights):
    checkpoint = {"meta": {"heads": [3, 6], "name": "x"}, "state_dict": weights}
    write_checkpoint(checkpoint, tmp_path / "w.safetensors")
    read = read_checkpoint(tmp_path / "w.safetensors")
    assert read["meta"] == checkpoint["meta"]
    torch.testing.assert_close(read["state_dict"], weights)
    torch.testing.assert_close(load_file(tmp_path / "w.safetensors"), weights)


@pytest.mark.parametrize("rest", [{}, {"state_dict": {"w": torch.ones(1)}, "best": torch.ones(1)}])
def test_safetensors_of_something_else_are_refused(tmp_path, rest):
    with pytest.raises(CheckpointError, match=r"w.safetensors must .*write a \.pth file"):
        write_checkpoint(rest, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())
